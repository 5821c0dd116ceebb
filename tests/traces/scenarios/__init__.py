"""All scenarios, registered by import."""

from tests.traces.scenarios import (
    agents,
    crowds,
    field_cases,
    half_evidence,
    hosts,
    look_alikes,
    mixes,
    true_signals,
    workloads,
)
from tests.traces.scenarios.registry import CASES, KINDS, SCENARIOS, SIGNALS, Scenario

__all__ = [
    "CASES", "KINDS", "SCENARIOS", "SIGNALS", "Scenario", "agents", "crowds", "field_cases",
    "half_evidence", "hosts", "look_alikes", "mixes", "true_signals", "workloads",
]  # fmt: skip
