"""Every wrong setting is one clear line that names the variable."""

from __future__ import annotations

import pytest

from breakfix.errors import SettingsError
from breakfix.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PROMETHEUS_URL", "prometheus:9090", "must start with http"),
        ("PROMETHEUS_TIMEOUT_S", "soon", "valid number"),
        ("PROMETHEUS_TIMEOUT_S", "0", "greater than 0"),
        ("KUBECONFIG", "/nowhere/config", "no such file"),
        ("KUBE_TIMEOUT_S", "301", "less than or equal to 300"),
        ("DATABASE_URL", "mysql://x/y", "must be a postgresql:// URL"),
        ("POLICY", "/nowhere/policy.yaml", "no such file"),
        ("CLUSTER_NAME", "Not A Name", "match pattern"),
        ("CLUSTER_NAME", "", "at least 1 character"),
        ("NAMESPACE", "", "at least 1 character"),
        ("LABEL_POOL", "", "at least 1 character"),
        ("LABEL_RACK", "", "at least 1 character"),
        ("LABEL_SKU", "", "at least 1 character"),
        ("LABEL_FABRIC", "", "at least 1 character"),
        ("GPU_RESOURCE", "", "at least 1 character"),
        ("GPU_NODE_SELECTOR", "a in (b, c)", "not understood"),
        ("AIRFLOW_URL", "localhost", "must start with http"),
        ("POD_DEADLINE_S", "-1", "greater than 0"),
        ("POD_DEADLINE_S", "1.5", "valid integer"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(monkeypatch, name, value, says):
    monkeypatch.setenv(f"BREAKFIX_{name}", value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value).startswith(f"BREAKFIX_{name}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_several_wrong_values_are_all_named(monkeypatch):
    monkeypatch.setenv("BREAKFIX_PROMETHEUS_URL", "x")
    monkeypatch.setenv("BREAKFIX_DATABASE_URL", "y")
    with pytest.raises(SettingsError, match=r"PROMETHEUS_URL.*; BREAKFIX_DATABASE_URL"):
        load_settings()


def test_a_password_is_in_no_message_and_in_no_representation(monkeypatch):
    monkeypatch.setenv("BREAKFIX_DATABASE_URL", "mysql://ann:secret@host/x")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "secret" not in str(error.value)
    good = Settings(database_url="postgresql://ann:secret@host/x", airflow_password="secret")
    assert "secret" not in repr(good)


def test_a_missing_setting_says_what_it_is_for():
    with pytest.raises(SettingsError, match=r"BREAKFIX_PROMETHEUS_URL is not set .*Base URL"):
        load_settings().require("prometheus_url")


def test_defaults_stand_where_nothing_is_set():
    settings = load_settings()
    assert (settings.namespace, settings.label_pool) == ("breakfix", "breakfix.dev/pool")
