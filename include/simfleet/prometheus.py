"""The Prometheus configuration that scrapes a fleet."""

from __future__ import annotations

import yaml

# kind of exporter in the fleet's own paths -> job
JOBS = {"dcgm": "dcgm-exporter", "node": "node-exporter", "ksm": "kube-state-metrics"}
SCRAPE_TIMEOUT = "10s"


def prometheus_config(url: str, scrape_interval: str = "15s") -> str:
    """A prometheus.yml with one job for each kind of exporter of the fleet at `url`."""
    jobs = [
        {
            "job_name": job,
            "honor_labels": False,
            "http_sd_configs": [{"url": f"{url.rstrip('/')}/sd/{path}", "refresh_interval": "10s"}],
        }
        for path, job in JOBS.items()
    ]
    every = {"scrape_interval": scrape_interval, "evaluation_interval": scrape_interval}
    # Prometheus refuses a timeout above the interval.
    every["scrape_timeout"] = min(scrape_interval, SCRAPE_TIMEOUT, key=_seconds)
    return yaml.safe_dump({"global": every, "scrape_configs": jobs}, sort_keys=False)


def _seconds(text: str) -> float:
    number, unit = text.rstrip("smh"), text[-1]
    return float(number) * {"s": 1, "m": 60, "h": 3600}.get(unit, 1)
