"""What a task works with: settings from `BREAKFIX_*`, with Airflow connections over them.

| connection | type | gives |
|---|---|---|
| `breakfix_prometheus` | http | BREAKFIX_PROMETHEUS_URL |
| `breakfix_kubernetes` | kubernetes | BREAKFIX_KUBECONFIG, BREAKFIX_KUBE_CONTEXT, or in-cluster |
| `breakfix_ledger` | postgres | BREAKFIX_DATABASE_URL |
| `breakfix_airflow` | http | BREAKFIX_AIRFLOW_URL, _USER, _PASSWORD: a service user |

A connection that does not exist leaves the environment's value; one that exists wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from breakfix.errors import IllegalTransition, SettingsError

if TYPE_CHECKING:
    from breakfix.flow.services import Services
    from breakfix.settings import Settings

PROMETHEUS = "breakfix_prometheus"
KUBERNETES = "breakfix_kubernetes"
LEDGER = "breakfix_ledger"
AIRFLOW = "breakfix_airflow"


class ConnectionLike(Protocol):
    """What is read of an Airflow connection."""

    schema: str | None
    host: str | None
    port: int | None
    login: str | None
    password: str | None

    @property
    def extra_dejson(self) -> Mapping[str, object]: ...


@cache
def services(*, needs_ledger: bool = True) -> Services:
    """Everything the flow needs, built once per process. Raises SettingsError."""
    return build(read_connections(), needs_ledger=needs_ledger)


def build(connections: Mapping[str, ConnectionLike], *, needs_ledger: bool) -> Services:
    """Wire the ports with these connections over the environment. Raises SettingsError."""
    from breakfix.wiring import build_services

    return build_services(settings_from(connections), needs_ledger=needs_ledger)


def settings() -> Settings:
    """The settings alone, for what speaks only to Airflow. Raises SettingsError."""
    return settings_from(read_connections())


def read_connections() -> dict[str, ConnectionLike]:
    """Those of our connections that exist; for tasks."""
    found: dict[str, ConnectionLike] = {}
    for name in _READERS:
        try:
            found[name] = BaseHook.get_connection(name)
        except AirflowNotFoundException:
            continue
    return found


async def aread_connections() -> dict[str, ConnectionLike]:
    """Those of our connections that exist; for triggers, which must not block their loop."""
    found: dict[str, ConnectionLike] = {}
    for name in _READERS:
        try:
            found[name] = await BaseHook.aget_connection(name)
        except AirflowNotFoundException:
            continue
    return found


def settings_from(connections: Mapping[str, ConnectionLike]) -> Settings:
    """The environment's settings with the connections' over them. Raises SettingsError."""
    from breakfix.settings import load_settings

    overrides: dict[str, str] = {}
    for name, connection in connections.items():
        overrides |= _READERS[name](connection)
    return load_settings(**overrides)


def _read_prometheus(connection: ConnectionLike) -> dict[str, str]:
    return {"prometheus_url": _http_url(PROMETHEUS, connection)}


def _read_airflow(connection: ConnectionLike) -> dict[str, str]:
    if not connection.login or not connection.password:
        raise SettingsError(
            f"connection {AIRFLOW}: the service user's login or password is missing"
        )
    return {
        "airflow_url": _http_url(AIRFLOW, connection),
        "airflow_user": connection.login,
        "airflow_password": connection.password,
    }


def _read_ledger(connection: ConnectionLike) -> dict[str, str]:
    if not connection.host or not connection.schema:
        raise SettingsError(f"connection {LEDGER}: host and schema (the database) are missing")
    user = quote(connection.login or "", safe="")
    if connection.password:
        user += ":" + quote(connection.password, safe="")
    at = f"{user}@" if user else ""
    port = f":{connection.port}" if connection.port else ""
    database = quote(connection.schema, safe="")
    return {"database_url": f"postgresql://{at}{connection.host}{port}/{database}"}


def _read_kubernetes(connection: ConnectionLike) -> dict[str, str]:
    """`kube_config_path` and `cluster_context`, or `in_cluster`; other forms are refused."""
    extra = connection.extra_dejson
    other = sorted(k for k in ("kube_config", "config_dict") if extra.get(k))
    if other:
        raise SettingsError(
            f"connection {KUBERNETES}: {other[0]} is not supported, give kube_config_path instead"
        )
    context = str(extra.get("cluster_context") or "")
    if extra.get("in_cluster"):
        return {"kubeconfig": "", "kube_context": context}
    path = str(extra.get("kube_config_path") or "")
    if not path:
        raise SettingsError(f"connection {KUBERNETES}: give kube_config_path, or in_cluster: true")
    return {"kubeconfig": path, "kube_context": context}


def _http_url(name: str, connection: ConnectionLike) -> str:
    """`host` may be a whole URL, or a name beside schema and port."""
    host = (connection.host or "").rstrip("/")
    if not host:
        raise SettingsError(f"connection {name}: host is missing")
    if "://" in host:
        return host
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'http'}://{host}{port}"


_READERS: Mapping[str, Callable[[ConnectionLike], dict[str, str]]] = {
    PROMETHEUS: _read_prometheus,
    KUBERNETES: _read_kubernetes,
    LEDGER: _read_ledger,
    AIRFLOW: _read_airflow,
}


@contextmanager
def final_errors() -> Iterator[None]:
    """Fail the task at once for what no retry can mend; everything else is Airflow's to retry."""
    try:
        yield
    except (SettingsError, IllegalTransition) as e:
        raise AirflowFailException(str(e)) from e
