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
    pod_outcome,
    reboot_outcome,
    signals_outcome,
    validation,
)
from tests.fakes_cluster import make_node

FIXED, NOT_FIXED, CANNOT_TELL = Outcome.FIXED, Outcome.NOT_FIXED, Outcome.CANNOT_TELL
UNKNOWN_READY = {"conditions": (Condition("Ready", "Unknown"),)}


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        pytest.param({"boot_id": "b2"}, FIXED, id="another boot, Ready"),
        pytest.param({}, NOT_FIXED, id="the same boot: it never rebooted"),
        pytest.param({"boot_id": "b2", "is_ready": False}, NOT_FIXED, id="another boot, not Ready"),
        pytest.param({"boot_id": "b2", **UNKNOWN_READY}, CANNOT_TELL, id="its kubelet is silent"),
        pytest.param({"boot_id": "b2", "uid": "other"}, CANNOT_TELL, id="another machine"),
        pytest.param({"boot_id": ""}, CANNOT_TELL, id="no boot id"),
    ],
)
def test_a_reboot_is_proved_by_the_boot_id(after: dict[str, Any], outcome: Outcome):
    before = make_node(boot_id="b1")
    assert reboot_outcome(before, make_node(**{"boot_id": "b1", **after})) is outcome


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


@pytest.mark.parametrize(
    ("phase", "exit_code", "outcome"),
    [
        ("Succeeded", 0, FIXED),
        ("Succeeded", None, CANNOT_TELL),
        ("Succeeded", 1, NOT_FIXED),
        ("Failed", 1, NOT_FIXED),
        ("Failed", None, NOT_FIXED),
        ("Running", None, CANNOT_TELL),
        ("Unknown", None, CANNOT_TELL),
    ],
)
def test_a_pod_must_end_with_zero(phase, exit_code, outcome):
    assert pod_outcome(phase, exit_code) is outcome


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        pytest.param({}, (CANNOT_TELL, "nothing was checked"), id="nothing"),
        pytest.param({"a": FIXED, "b": FIXED}, (FIXED, "a, b: passed"), id="all passed"),
        pytest.param(
            {"a": FIXED, "b": CANNOT_TELL}, (CANNOT_TELL, "b: cannot tell"), id="one open"
        ),
        pytest.param(
            {"a": NOT_FIXED, "b": CANNOT_TELL}, (NOT_FIXED, "a: failed"), id="a failure is worst"
        ),
    ],
)
def test_validation_is_as_good_as_its_worst_check(outcomes, expected):
    assert validation(outcomes) == expected
