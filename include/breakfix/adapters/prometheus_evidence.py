"""The last minutes of one node's series, for the person who looks at a case: small, and read once.

Sweeps do not come here: they read the whole fleet through `PrometheusMetrics`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from breakfix.adapters.prometheus import cut
from breakfix.errors import MetricsError

if TYPE_CHECKING:
    from prometheus_api_client import PrometheusConnect

#: What a person asks first about a GPU: is it there, what did it say, was it hot, did it work.
METRICS = (
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "DCGM_FI_DEV_ROW_REMAP_PENDING",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE",
    "DCGM_FI_DEV_GPU_RECOVERY_ACTION",
)
HOST_LABELS = ("Hostname", "hostname")  # dcgm-exporter before and after its renaming of 2026-05
MAX_SERIES = 512  # 16 GPUs of everything, and room


@dataclass(frozen=True, slots=True)
class EvidenceSeries:
    """One series of one GPU: (time, value) in order of time."""

    metric: str
    gpu: str
    labels: Mapping[str, str]
    points: tuple[tuple[datetime, float], ...]


def node_evidence(
    url: str,
    node: str,
    *,
    at: datetime,
    lookback: timedelta = timedelta(minutes=30),
    step_s: int = 60,
    timeout_s: float = 10.0,
    metrics: Sequence[str] = METRICS,
) -> tuple[EvidenceSeries, ...]:
    """The node's series from `at - lookback` to `at`. Raises MetricsError.

    One attempt with a timeout: by its own defaults the client retries a silent server, each
    attempt without end.
    """
    names = "|".join(metrics)
    found: list[dict[str, Any]] = []
    with _connect(url, timeout_s) as client:
        for label in HOST_LABELS:
            query = f'{{__name__=~"{names}",{label}={json.dumps(node)}}}'
            found += _range(client, query, start=at - lookback, end=at, step_s=step_s)
    return tuple(_series(raw) for raw in found[:MAX_SERIES])


def _connect(url: str, timeout_s: float) -> PrometheusConnect:
    from prometheus_api_client import PrometheusConnect
    from urllib3.util.retry import Retry

    return PrometheusConnect(
        url.rstrip("/"), retry=Retry(total=0), timeout=math.ceil(timeout_s), method="POST"
    )


def _range(
    client: PrometheusConnect, query: str, *, start: datetime, end: datetime, step_s: int
) -> list[dict[str, Any]]:
    from prometheus_api_client.exceptions import PrometheusApiClientException
    from requests import RequestException

    try:
        result: list[dict[str, Any]] = client.custom_query_range(query, start, end, f"{step_s}s")
    except (PrometheusApiClientException, RequestException) as e:
        raise MetricsError(f"evidence could not be read from Prometheus: {cut(str(e))}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise MetricsError("Prometheus' answer is not understood") from e
    return result


def _series(raw: Mapping[str, Any]) -> EvidenceSeries:
    labels: dict[str, str] = dict(raw["metric"])
    return EvidenceSeries(
        metric=labels.pop("__name__", ""),
        gpu=labels.get("UUID") or labels.get("gpu", ""),
        labels=labels,
        points=tuple((datetime.fromtimestamp(t, UTC), float(v)) for t, v in raw["values"]),
    )
