"""The command `simfleet`, as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from simfleet.cli import app

DEMO = Path(str(resources.files("simfleet"))) / "scenarios" / "demo.yaml"
DEADLINE_S = 60.0


def simfleet(*argv, url):
    env = os.environ | {"SIMFLEET_URL": url}
    return subprocess.run(
        [sys.executable, "-m", "simfleet", *argv],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    info, kubeconfig = folder / "info.json", folder / "kubeconfig"
    argv = ["serve", "--nodes", "3", "--port", "0", "--hold"]
    argv += ["--info", str(info), "--kubeconfig", str(kubeconfig)]
    process = subprocess.Popen([sys.executable, "-m", "simfleet", *argv])
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not info.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield json.loads(info.read_text()) | {"kubeconfig": kubeconfig}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_break_status_and_heal_work_on_a_served_fleet(served):
    url = served["url"]
    broken = simfleet("break", "rack-001-n02", "xid79", "--gpu", "3", url=url)
    assert (broken.returncode, broken.stdout) == (0, "xid79 on rack-001-n02\n")
    status = json.loads(simfleet("status", "-o", "json", url=url).stdout)
    faults = {n["node"]: [f["fault"] for f in n["faults"]] for n in status["nodes"]}
    assert faults["rack-001-n02"] == ["xid79"]
    assert simfleet("heal", "rack-001-n02", url=url).stdout.startswith("1 fault(s)")


def test_a_wrong_request_ends_with_one_line_and_exit_code_2(served):
    done = simfleet("break", "rack-001-n02", "xid7", url=served["url"])
    assert done.returncode == 2
    assert "unknown fault 'xid7'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fleet_that_is_not_there_is_said_in_one_line():
    done = simfleet("status", url="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "no answer from simfleet" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_writes_a_kubeconfig_for_the_https_port_that_only_its_owner_reads(served):
    config = yaml.safe_load(served["kubeconfig"].read_text())
    assert config["clusters"][0]["cluster"]["server"] == served["tls_url"]
    assert served["kubeconfig"].stat().st_mode & 0o077 == 0


def test_scenario_check_counts_what_is_in_the_demo():
    done = CliRunner().invoke(app, ["scenario", "check", str(DEMO)])
    assert done.exit_code == 0
    assert "25 nodes in 8 racks" in done.stdout


def test_prometheus_config_scrapes_each_kind_of_exporter():
    done = CliRunner().invoke(
        app, ["prometheus-config", "--url", "http://127.0.0.1:1", "--scrape-interval", "5s"]
    )
    config = yaml.safe_load(done.stdout)
    assert config["global"]["scrape_interval"] == config["global"]["scrape_timeout"] == "5s"
    urls = [job["http_sd_configs"][0]["url"] for job in config["scrape_configs"]]
    assert urls == [f"http://127.0.0.1:1/sd/{kind}" for kind in ("dcgm", "node", "ksm")]
    assert not any(job["honor_labels"] for job in config["scrape_configs"])
