"""Settings from the environment with Airflow's connections over them, and clear errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException

from breakfix.errors import ClusterError, SettingsError
from breakfix_airflow.intervals import interval
from breakfix_airflow.services import final_errors, settings_from

pytestmark = pytest.mark.airflow


@dataclass
class FakeConnection:
    schema: str | None = None
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    extra_dejson: dict = field(default_factory=dict)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("PROMETHEUS_URL", "DATABASE_URL", "AIRFLOW_URL", "AIRFLOW_USER", "KUBECONFIG"):
        monkeypatch.delenv(f"BREAKFIX_{name}", raising=False)


def a_kubeconfig(tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text("{}")
    return str(path)


@pytest.mark.parametrize(
    ("name", "connection", "setting", "value"),
    [
        pytest.param(
            *("breakfix_prometheus", FakeConnection(host="prom", port=9090)),
            *("prometheus_url", "http://prom:9090"),
            id="a host and a port",
        ),
        pytest.param(
            *("breakfix_prometheus", FakeConnection(host="prom", schema="https")),
            *("prometheus_url", "https://prom"),
            id="a host and a scheme",
        ),
        pytest.param(
            *("breakfix_prometheus", FakeConnection(host="https://prom/tenant/")),
            *("prometheus_url", "https://prom/tenant"),
            id="a whole URL",
        ),
        pytest.param(
            "breakfix_ledger",
            FakeConnection(host="db", port=5432, schema="breakfix", login="u", password="p@/:"),
            *("database_url", "postgresql://u:p%40%2F%3A@db:5432/breakfix"),
            id="a password that needs quoting",
        ),
        pytest.param(
            *("breakfix_ledger", FakeConnection(host="db", schema="breakfix")),
            *("database_url", "postgresql://db/breakfix"),
            id="a database without a login",
        ),
        pytest.param(
            *("breakfix_airflow", FakeConnection(host="http://a:8080", login="u", password="p")),
            *("airflow_user", "u"),
            id="the service user",
        ),
        pytest.param(
            *("breakfix_kubernetes", FakeConnection(extra_dejson={"in_cluster": True})),
            *("kubeconfig", ""),
            id="the cluster that Airflow runs in",
        ),
    ],
)
def test_a_connection_gives_its_setting(name, connection, setting, value):
    assert getattr(settings_from({name: connection}), setting) == value


def test_a_kubeconfig_comes_with_its_context(tmp_path):
    extra = {"kube_config_path": a_kubeconfig(tmp_path), "cluster_context": "east"}
    settings = settings_from({"breakfix_kubernetes": FakeConnection(extra_dejson=extra)})
    assert (settings.kubeconfig, settings.kube_context) == (extra["kube_config_path"], "east")


def test_a_connection_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("BREAKFIX_PROMETHEUS_URL", "http://from-env")
    assert settings_from({}).prometheus_url == "http://from-env"
    found = settings_from({"breakfix_prometheus": FakeConnection(host="http://from-conn")})
    assert found.prometheus_url == "http://from-conn"


@pytest.mark.parametrize(
    ("name", "connection", "line"),
    [
        pytest.param(
            *("breakfix_prometheus", FakeConnection()),
            "connection breakfix_prometheus: host is missing",
            id="Prometheus without a host",
        ),
        pytest.param(
            *("breakfix_ledger", FakeConnection(host="db")),
            "connection breakfix_ledger: host and schema",
            id="a ledger without a database",
        ),
        pytest.param(
            *("breakfix_airflow", FakeConnection(host="a", login="u")),
            "connection breakfix_airflow: the service user's login or password is missing",
            id="a service user without a password",
        ),
        pytest.param(
            *("breakfix_kubernetes", FakeConnection(extra_dejson={"kube_config": "{}"})),
            "kube_config is not supported, give kube_config_path",
            id="a kubeconfig in the connection",
        ),
        pytest.param(
            *("breakfix_kubernetes", FakeConnection()),
            "give kube_config_path, or in_cluster",
            id="a cluster that is not named",
        ),
        pytest.param(
            "breakfix_kubernetes",
            FakeConnection(extra_dejson={"kube_config_path": "/no/such"}),
            "no such file",
            id="a kubeconfig that is not there",
        ),
    ],
)
def test_a_wrong_connection_is_one_clear_line(name, connection, line):
    with pytest.raises(SettingsError, match=line) as e:
        settings_from({name: connection})
    assert "\n" not in str(e.value)


def test_a_wrong_setting_fails_the_task_at_once():
    with pytest.raises(AirflowFailException, match="BREAKFIX_X is not set"), final_errors():
        raise SettingsError("BREAKFIX_X is not set")


def test_what_may_pass_is_left_to_airflows_retries():
    with pytest.raises(ClusterError), final_errors():
        raise ClusterError("away", is_transient=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("", 120, id="unset"),
        pytest.param("15", 15, id="a number"),
        pytest.param(" 7.5 ", 7.5, id="a fraction with spaces"),
        pytest.param("often", 120, id="no number"),
        pytest.param("0", 120, id="nothing"),
        pytest.param("-3", 120, id="less than nothing"),
        pytest.param("nan", 120, id="not a number"),
        pytest.param("1e9", 120, id="longer than a day"),
    ],
)
def test_an_interval_that_makes_no_sense_is_the_default(text, seconds):
    found = interval("X", default_s=120, environment={"X": text})
    assert found == timedelta(seconds=seconds)
