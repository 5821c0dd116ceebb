"""The trial deployment on one host is well formed, and agrees with the rest of the project.

No container engine is needed here; what an engine would check is checked on the file itself.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from breakfix.settings import Settings
from dev.stack.airflow import COMPONENTS, POOLS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]+\}")
MENTIONED = re.compile(r"\$\{(\w+)")
CONDITIONS = {"service_healthy", "service_completed_successfully"}


def test_every_component_of_airflow_is_a_service() -> None:
    assert set(COMPONENTS) <= set(SERVICES)
    assert {"postgres", "prometheus", "airflow-init", "ledger-init"} <= set(SERVICES)


def test_whoever_is_waited_for_can_say_that_it_is_ready() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] in CONDITIONS, name
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], other
            else:
                assert SERVICES[other].get("restart", "no") == "no", other


def test_every_server_has_a_health_check_and_every_one_shot_has_none() -> None:
    checked = {name for name, s in SERVICES.items() if "test" in s.get("healthcheck", {})}
    assert checked == set(SERVICES) - {"airflow-init", "ledger-init"}


def test_mounted_files_exist_and_named_volumes_are_declared() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = re.sub(r"\$\{[^}]+\}", "VARIABLE", volume).partition(":")[0]
            if source in {"./dags", "./plugins", "VARIABLE"}:
                continue
            known = source in COMPOSE["volumes"] or (ROOT / source).exists()
            assert known, source


def test_ports_are_open_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_secrets_have_no_default_and_the_head_of_the_file_names_them() -> None:
    head = TEXT.partition("\nname:")[0]
    required = set(REQUIRED.findall(TEXT))
    assert {v for v in MENTIONED.findall(TEXT) if "PASSWORD" in v or "SECRET" in v} <= required
    assert all(name in head for name in required)


def test_every_setting_in_it_is_a_setting_of_ours() -> None:
    names = {key for key in COMPOSE["x-settings"] if key.startswith("BREAKFIX_")}
    assert names <= {f"BREAKFIX_{field.upper()}" for field in Settings.model_fields}


def test_the_pools_are_those_of_the_local_stack() -> None:
    script = (ROOT / "deploy" / "compose" / "airflow-init.sh").read_text()
    assert all(pool in script for pool in POOLS)


def test_prometheus_accepts_its_configuration() -> None:
    config = ROOT / "deploy" / "prometheus" / "prometheus.yaml"
    result = subprocess.run(
        ["promtool", "check", "config", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "script", [".ci/run", "dev/bootstrap.sh", "deploy/compose/airflow-init.sh"]
)
def test_shell_scripts_parse(script: str) -> None:
    shell = "sh" if script.endswith("init.sh") else "bash"
    subprocess.run([shell, "-n", script], cwd=ROOT, timeout=10, check=True)


def test_the_image_copies_what_the_build_may_see() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == set(allowed)


def test_whoever_reads_the_settings_is_given_the_policy_that_they_name() -> None:
    readers = {
        name: service
        for name, service in SERVICES.items()
        if "BREAKFIX_POLICY" in service.get("environment", {}) and name != "airflow-init"
    }
    assert {*COMPONENTS, "ledger-init"} == set(readers)
    lacking = [n for n, s in readers.items() if not any("policy.yaml" in v for v in s["volumes"])]
    assert lacking == []
