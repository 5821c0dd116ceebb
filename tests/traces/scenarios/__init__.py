"""All scenarios, registered by import."""

from tests.traces.scenarios import (
    crowds,
    field_cases,
    half_evidence,
    look_alikes,
    mixes,
    true_signals,
    workloads,
)
from tests.traces.scenarios.registry import CASES, KINDS, SCENARIOS, SIGNALS, Scenario

__all__ = [
    "CASES", "KINDS", "SCENARIOS", "SIGNALS", "Scenario", "crowds", "field_cases",
    "half_evidence", "look_alikes", "mixes", "true_signals", "workloads",
]  # fmt: skip
