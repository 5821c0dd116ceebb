"""Settings: where things are and how long to wait. Read once, in wiring; rules live in the policy
instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from breakfix.errors import SettingsError


class Settings(BaseSettings):
    """`BREAKFIX_*` environment variables; every wrong value is named in one clear line."""

    model_config = SettingsConfigDict(env_prefix="BREAKFIX_", extra="ignore", frozen=True)

    prometheus_url: str = Field(
        "", description="Base URL of Prometheus, e.g. http://prometheus:9090"
    )
    prometheus_timeout_s: float = Field(
        90.0, gt=0, le=300, description="Deadline of one sweep's queries"
    )
    kubeconfig: str = Field("", description="Path of a kubeconfig; empty means in-cluster")
    kube_context: str = Field(
        "", description="Context of the kubeconfig; empty means its current one"
    )
    kube_timeout_s: float = Field(20.0, gt=0, le=300, description="Deadline of one API request")
    database_url: str = Field(
        "", repr=False, description="Ledger, e.g. postgresql://user:password@host/breakfix"
    )
    policy: str = Field(
        "", description="Path of a policy overlay (YAML); empty means the default policy"
    )
    policy_kept: str = Field(
        "",
        description="Where the last good overlay is kept, for processes that start while it is"
        " broken; empty: they end with an error",
    )
    cluster_name: str = Field(
        "default", min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]*$"
    )
    namespace: str = Field(
        "breakfix", min_length=1, description="Where our pods and ConfigMaps live"
    )
    label_pool: str = Field("breakfix.dev/pool", min_length=1)
    label_rack: str = Field("topology.kubernetes.io/rack", min_length=1)
    label_sku: str = Field("nvidia.com/gpu.product", min_length=1)
    label_fabric: str = Field("nvidia.com/gpu.clique", min_length=1)
    gpu_node_selector: str = Field(
        "nvidia.com/gpu.present=true",
        description="Which nodes are GPU nodes; others are never touched",
    )
    gpu_resource: str = Field("nvidia.com/gpu", min_length=1)
    airflow_url: str = Field("", description="Airflow's base URL, for the approval reader")
    airflow_user: str = Field("", description="Service user of the approval reader")
    airflow_password: str = Field("", repr=False)
    repair_image: str = Field("ubuntu:24.04", description="Image of the pods that reset and reboot")
    diag_image: str = Field("nvcr.io/nvidia/cloud-native/dcgm:4.6.0-1-ubuntu24.04")
    nccl_image: str = Field(
        "", description="Image with nccl-tests' all_reduce_perf; empty: not run in a validation"
    )
    nvbandwidth_image: str = Field(
        "", description="Image with NVIDIA's nvbandwidth; empty: not run in a validation"
    )
    pod_deadline_s: int = Field(900, gt=0, le=10800)
    acts_at_once: int = Field(
        64, ge=1, le=64, description="Nodes that one sweep quarantines at the same time"
    )

    repair_providers: str = Field(
        "",
        description="Who does a rung that no pod does: a JSON map of rung to `redfish` or a"
        " webhook's URL",
    )
    webhook_secret: str = Field("", repr=False, description="Signs requests to webhooks")
    webhook_timeout_s: float = Field(10.0, gt=0, le=60)
    redfish_hosts: str = Field(
        "", description="BMCs that may be spoken to: names, .suffixes, networks, with commas"
    )
    redfish_addresses: str = Field(
        "", description="JSON map of node to its BMC's address, beside the annotation"
    )
    redfish_annotation: str = Field("breakfix.dev/bmc", min_length=1)
    redfish_user: str = ""
    redfish_password: str = Field("", repr=False)
    redfish_auth: Literal["session", "basic"] = "session"
    redfish_ca: str = Field("", description="Path of the CA that signed the BMCs' certificates")
    redfish_timeout_s: float = Field(10.0, gt=0, le=60)

    @field_validator("repair_providers", "redfish_addresses")
    @classmethod
    def _is_map(cls, value: str) -> str:
        words_of_map(value)
        return value

    @field_validator("prometheus_url", "airflow_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            msg = "must start with http:// or https://"
            raise ValueError(msg)
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: str) -> str:
        if value and not value.startswith(
            ("postgresql://", "postgresql+psycopg://", "postgres://")
        ):
            msg = "must be a postgresql:// URL"
            raise ValueError(msg)
        return value

    @field_validator("gpu_node_selector")
    @classmethod
    def _is_selector(cls, value: str) -> str:
        if any(c in term.strip() for term in value.split(",") for c in "() \t"):
            msg = f"{value!r} is not understood; write terms a=b, a!=b, a or !a with commas"
            raise ValueError(msg)
        return value

    @field_validator("kubeconfig", "policy", "redfish_ca")
    @classmethod
    def _exists(cls, value: str) -> str:
        if value and not Path(value).expanduser().is_file():
            msg = f"no such file: {value}"
            raise ValueError(msg)
        return value

    def require(self, *names: str) -> None:
        """Raise SettingsError naming the first of these settings that is empty."""
        for name in names:
            if not getattr(self, name):
                field = type(self).model_fields[name]
                hint = f" ({field.description})" if field.description else ""
                msg = f"BREAKFIX_{name.upper()} is not set{hint}"
                raise SettingsError(msg)


def words_of_map(text: str) -> Mapping[str, str]:
    """A JSON map of words to words; nothing of an empty text. Raises ValueError."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except ValueError as e:
        msg = f"is no JSON: {e}"
        raise ValueError(msg) from None
    if not isinstance(value, dict) or not all(isinstance(v, str) and v for v in value.values()):
        msg = 'must be a JSON map of words, as {"power_cycle": "redfish"}'
        raise ValueError(msg)
    return {str(k): v for k, v in value.items()}


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and overrides. Raises SettingsError with one line per wrong
    value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as e:
        lines = [
            f"BREAKFIX_{'_'.join(str(p) for p in err['loc']).upper()}: "
            f"{err['msg'].removeprefix('Value error, ')}"
            for err in e.errors(include_url=False)
        ]
        raise SettingsError("; ".join(lines)) from None
