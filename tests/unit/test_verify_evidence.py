from __future__ import annotations

from typing import Any

import pytest

from breakfix.model import (
    Action,
    Condition,
    FailureClass,
    Finding,
    NodeState,
    Outcome,
    SignalKind,
    SignalMode,
    Verdict,
)
from breakfix.verify import (
    gpus_outcome,
    signals_outcome,
)
from tests.fakes_cluster import make_node

FIXED, NOT_FIXED, CANNOT_TELL = Outcome.FIXED, Outcome.NOT_FIXED, Outcome.CANNOT_TELL
UNKNOWN_READY = {"conditions": (Condition("Ready", "Unknown"),)}


@pytest.mark.parametrize(
    ("node", "expected", "outcome"),
    [
        pytest.param({}, 8, FIXED, id="all are there"),
        pytest.param({"gpus_allocatable": 7}, 8, NOT_FIXED, id="one is not healthy"),
        pytest.param({"gpus_allocatable": 7, "gpus_capacity": 7}, 8, NOT_FIXED, id="one is gone"),
        pytest.param({}, 4, NOT_FIXED, id="more than the SKU has"),
        pytest.param({}, 0, CANNOT_TELL, id="nobody knows how many there should be"),
        pytest.param({"is_ready": False}, 8, CANNOT_TELL, id="a node that is not Ready"),
    ],
)
def test_gpus_must_all_be_offered(node: dict[str, Any], expected: int, outcome: Outcome):
    assert gpus_outcome(make_node(**node), expected) is outcome


def finding(mode: SignalMode) -> Finding:
    return Finding(
        "xid",
        "gpu-1",
        "0",
        79.0,
        0.0,
        300.0,
        1.0,
        0.9,
        "driver",
        mode,
        SignalKind.EVENT,
        FailureClass.GPU_OFF_BUS,
        Action.REBOOT_NODE,
        "table",
        "XID 79",
    )


def verdict(**changes: Any) -> Verdict:
    defaults: dict[str, Any] = {
        "state": NodeState.HEALTHY,
        "failure_class": None,
        "confidence": 0.0,
        "findings": (),
        "unknown": (),
        "recommended_action": Action.NONE,
        "reason": "",
    }
    return Verdict("gpu-1", **{**defaults, **changes})


@pytest.mark.parametrize(
    ("changes", "required", "outcome"),
    [
        pytest.param({}, None, FIXED, id="nothing speaks"),
        pytest.param({"unknown": ("xid",)}, None, CANNOT_TELL, id="a signal is missing"),
        pytest.param(
            {"unknown": ("ib",)}, frozenset({"xid"}), FIXED, id="a signal that is not required"
        ),
        pytest.param(
            {"unknown": ("xid",)}, frozenset({"xid"}), CANNOT_TELL, id="a required one is missing"
        ),
        pytest.param({"findings": (finding(SignalMode.ALONE),)}, None, NOT_FIXED, id="it speaks"),
        pytest.param(
            {"findings": (finding(SignalMode.CORROBORATE),), "unknown": ("x",)},
            *(None, NOT_FIXED),
            id="a weak finding is still a finding",
        ),
        pytest.param({"findings": (finding(SignalMode.NEVER),)}, None, FIXED, id="only context"),
        pytest.param(
            {
                "failure_class": FailureClass.APP_LEVEL,
                "findings": (finding(SignalMode.NEVER),),
            },
            *(None, FIXED),
            id="a class that only context speaks for",
        ),
        pytest.param(
            {"failure_class": FailureClass.TELEMETRY_LOST},
            *(None, CANNOT_TELL),
            id="lost telemetry",
        ),
    ],
)
def test_signals_must_be_known_and_quiet(changes, required, outcome):
    assert signals_outcome(verdict(**changes), required=required) is outcome


def test_a_node_that_was_not_judged_cannot_tell():
    assert signals_outcome(None) is CANNOT_TELL
