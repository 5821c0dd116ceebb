"""What a repaired node must show before it may return, and what becomes of one that does not."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from breakfix.flow.case import run_stage
from breakfix.flow.gates import remedy_asked
from breakfix.flow.load_checks import diag_levels
from breakfix.flow.look_over import look_over
from breakfix.flow.proof import proof_at_this_fence
from breakfix.flow.stages import Stage, Wait
from breakfix.model import CaseEnd, NodeState, Outcome, Purpose, StepStatus
from breakfix.verify import Remedy
from tests.flow.world import FlowWorld

DATA = Path(__file__).parent.parent / "data"
VERIFIED, FAILED, DONE, UNKNOWN = (
    StepStatus.VERIFIED,
    StepStatus.FAILED,
    StepStatus.DONE,
    StepStatus.UNKNOWN,
)
IMAGES = {"nccl_image": "site/nccl-tests:1", "nvbandwidth_image": "site/nvbandwidth:1"}
FLOORS = """
validation:
  bandwidth:
    floors: {H100: {gpus: 8, all_reduce: 460, h2d: 48, d2h: 48, p2p: 335, source: tests}}
"""


def recorded(name):
    return (DATA / name).read_text()


LOADS = {
    "nccl": (0, recorded("bandwidth/nccl_h100.txt")),
    "nvbandwidth": (0, recorded("bandwidth/nvbandwidth_h100.json")),
}
_PASSED = json.loads(recorded("diag/r2_pass.json"))
_MORE = copy.deepcopy(next(c for c in _PASSED["DCGM Diagnostic"]["test_categories"])["tests"][0])
_PASSED["DCGM Diagnostic"]["test_categories"].append(
    {"category": "Hardware", "tests": [_MORE | {"name": "diagnostic"}]}
)
LEVEL_3 = json.dumps(_PASSED)
BUSY = (217, '{"DCGM Diagnostic": {"runtime_error": "another one runs"}}')


def broken_world(xid=79, **changes):
    world = FlowWorld(**changes)
    world.break_node("a1", xid)
    return world


def step(world, name, node="a1"):
    return next(s for s in world.ledger.steps(world.case(node).id) if s.name == name)


def validation_steps(world):
    names = [s.name for s in world.ledger.steps(world.case().id)]
    return names[names.index("check_gpus-1") : names.index("release-1")]


# --------------------------------------------------------------------------- the order


def test_a_validation_goes_from_ready_to_signals_with_every_check_on_record():
    world = broken_world(overlay=FLOORS, settings=IMAGES, loads=LOADS)
    world.add_validator("a1", changed_at=None)
    world.drive(world.at_stage(Stage.CHECK_OPERATOR))
    world.cluster.change_pod(
        "gpu-operator", "nvidia-operator-validator-a1", changed_at=world.clock.now()
    )
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert validation_steps(world) == [
        "check_gpus-1",
        "check_operator-1",
        "diag_r1-1",
        "diag_r2-1",
        "nccl-1",
        "nvbandwidth-1",
        "check_signals-1",
    ]
    assert {world.steps()[name] for name in validation_steps(world)} == {VERIFIED}
    assert (world.ran["quick diag"], world.ran["diag"]) == (1, 1)
    assert step(world, "nccl-1").detail["measured"] == {"all_reduce": 481.3}
    assert step(world, "nccl-1").detail["has_nvls"] is True
    gpus = step(world, "check_gpus-1").detail
    assert gpus["before"]["boot_id_before"] == "boot-a1-1"
    assert gpus["after"]["boot_id"] == "boot-a1-1+"


def test_a_check_that_was_not_run_says_so_and_is_no_pass():
    world = broken_world()
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    for name in ("check_operator-1", "nccl-1", "nvbandwidth-1"):
        assert world.steps()[name] is DONE
        assert step(world, name).detail["text"].startswith("not run: ")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"settings": IMAGES}, id="no floors for the SKU"),
        pytest.param({}, id="no image"),
    ],
)
def test_a_bandwidth_that_policy_requires_and_nobody_can_measure_holds_the_node(changes):
    overlay = "validation: {bandwidth: {is_required: true}}"
    world = broken_world(overlay=overlay, loads=LOADS, **changes)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()
    assert "not run" in world.why()


@pytest.mark.parametrize(
    "stage", [Stage.RUN_BANDWIDTH, Stage.CHECK_SIGNALS, Stage.RETURN_NODE], ids=str
)
def test_a_validation_with_a_check_left_out_carries_no_return(stage):
    world = broken_world()
    world.silence.add(Purpose.RETURN)
    world.drive(world.at_stage(Stage.CHECK_OPERATOR))
    case = world.case()
    world.clock.sleep(120)
    run_stage(world.services, stage, case.id, case.fence)
    assert proof_at_this_fence(world.services, case) is None
    assert world.case().state is NodeState.VALIDATING


# --------------------------------------------------------------------------- GPUs, operator


def test_a_node_in_mig_mode_is_a_persons_and_is_not_repaired_any_further():
    world = broken_world()
    labels = {"nvidia.com/gpu.present": "true", "nvidia.com/mig.config": "all-1g.10gb"}
    world.cluster.change_node("a1", labels=labels)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "MIG mode" in step(world, "diag_not_run-1").detail["text"]
    assert remedy_asked(step(world, "diag_not_run-1")) is Remedy.PERSON
    assert world.ran["reboot"] == 1


def test_a_validator_that_is_ready_from_before_the_reboot_is_waited_for():
    world = broken_world()
    world.add_validator("a1", changed_at=world.clock.now())
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "from before the reboot" in world.why()


def test_a_validator_that_never_gets_ready_holds_the_node_and_names_what_it_waits_for():
    world = broken_world(95)
    world.add_validator("a1", is_ready=False, init_waiting="toolkit-validation")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "waits for toolkit-validation" in world.why()
    assert world.is_held_out()


def test_a_validator_that_gets_ready_late_is_waited_for():
    world = broken_world(95)
    world.add_validator("a1", is_ready=False)
    world.drive(world.at_stage(Stage.CHECK_OPERATOR))
    world.run_for(60)
    world.cluster.change_pod("gpu-operator", "nvidia-operator-validator-a1", is_ready=True)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.steps()["check_operator-1"] is VERIFIED


def test_the_operators_metrics_are_heard_where_it_reports_any():
    world = broken_world(95)
    world.add_validator("a1")
    world.metrics.operator["a1"] = 0.0
    world.drive(world.ended())
    assert "metrics call the node not ready" in world.why()


def test_operator_metrics_that_cannot_be_read_hold_the_node():
    world = broken_world(95)
    world.add_validator("a1")
    world.drive(world.at_stage(Stage.CHECK_OPERATOR))
    world.metrics.is_down = True
    case = world.case()
    result = run_stage(world.services, Stage.CHECK_OPERATOR, case.id, case.fence)
    assert isinstance(result, Wait)
    world.metrics.is_down = False
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_a_node_that_the_operator_does_not_serve_is_not_asked_about():
    world = broken_world(95)
    world.add_validator("b1")
    label = {"nvidia.com/gpu.deploy.operator-validator": "false"}
    world.cluster.change_node("a1", labels={"nvidia.com/gpu.present": "true"} | label)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert "keeps the operator's validator off" in step(world, "check_operator-1").detail["text"]


# --------------------------------------------------------------------------- the diagnostic


@pytest.mark.parametrize(
    ("recording", "exit_code", "remedy"),
    [
        pytest.param(
            "r3_fail_memory_isolate", 205, Remedy.HOLD_FOR_HARDWARE, id="isolate: hardware"
        ),
        pytest.param("r1_fail_pending_remap", 226, Remedy.RESET_GPU, id="reset: once more"),
        pytest.param("r2_fail_pcie_triage", 226, Remedy.REBOOT_NODE, id="triage: a reboot"),
        pytest.param("runtime_error", 226, Remedy.PERSON, id="a runtime error: a person"),
    ],
)
def test_a_failed_diagnostic_records_what_it_asks_for(recording, exit_code, remedy):
    world = broken_world(95, diags=[(exit_code, recorded(f"diag/{recording}.json"))] * 9)
    world.drive(lambda: world.ledger.cases() and "diag_r2-1" in world.steps())
    world.drive(lambda: world.steps()["diag_r2-1"] is not StepStatus.DISPATCHED)
    found = step(world, "diag_r2-1")
    assert remedy_asked(found) is remedy
    assert found.status is (UNKNOWN if remedy is Remedy.PERSON else FAILED)


@pytest.mark.parametrize("code", [217, 215, 204, 203, 198])
def test_a_diagnostic_that_could_not_run_is_tried_again_after_a_pause(code):
    world = broken_world(diags=[(code, ""), (code, "")])
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.ran["diag"] == 3
    tries = [step(world, f"diag_r2{x}-1") for x in ("", "_try2", "_try3")]
    assert [t.status for t in tries] == [UNKNOWN, UNKNOWN, VERIFIED]
    assert (tries[1].started_at - tries[0].ended_at).total_seconds() >= 60


def test_a_diagnostic_that_is_always_busy_is_a_persons_after_three_tries():
    world = broken_world(diag=BUSY)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.ran["diag"] == 3
    assert world.is_held_out()
    assert remedy_asked(step(world, "diag_r2_try3-1")) is Remedy.PERSON


def test_a_failure_of_the_first_level_starts_no_second_one():
    world = broken_world(quick_diag=(205, recorded("diag/r3_fail_memory_isolate.json")))
    world.drive(lambda: world.ledger.cases() and "diag_r1-1" in world.steps())
    world.drive(lambda: world.steps()["diag_r1-1"] is FAILED)
    assert world.ran["diag"] == 0


@pytest.mark.parametrize(
    ("level", "levels"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4))],
    ids=["quick", "medium", "long", "longest"],
)
def test_the_levels_of_a_class_go_up_from_the_first(level, levels):
    overlay = f"classes: {{gpu_off_bus: {{diag_level: {level}}}}}"
    world = broken_world(overlay=overlay)
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    assert diag_levels(world.services, world.case()) == levels


def test_after_a_triage_error_the_third_level_is_asked_for():
    world = broken_world(95, diags=[(226, recorded("diag/r2_fail_pcie_triage.json"))] * 9)
    world.drive(lambda: world.ledger.cases() and world.steps().get("diag_r2-1") is FAILED)
    assert diag_levels(world.services, world.case()) == (1, 2, 3)


def config_error():
    """The pass, but for one error of severity config."""
    document = json.loads(recorded("diag/r2_pass.json"))
    test = document["DCGM Diagnostic"]["test_categories"][0]["tests"][0]
    warning = {"warning": "persistence mode is off", "error_id": 31, "error_severity": 5}
    test["results"][0] |= {"status": "Fail", "warnings": [warning]}
    return json.dumps(document)


def test_a_triage_error_is_rebooted_and_then_looked_at_longer():
    world = broken_world(95, diags=[(226, recorded("diag/r2_fail_pcie_triage.json"))])
    world.diag = (0, LEVEL_3)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 1)
    levels = [s.name for s in world.ledger.steps(world.case().id) if s.name.startswith("diag")]
    assert levels == ["diag_r1-1", "diag_r2-1", "diag_r1-1.2", "diag_r2-1.2", "diag_r3-1.2"]


def test_hardware_that_is_called_bad_is_not_rebooted_first():
    world = broken_world(95, diag=(205, recorded("diag/r3_fail_memory_isolate.json")))
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 0)
    assert world.is_held_out()


def test_an_error_of_the_software_is_a_persons_and_repairs_nothing():
    world = broken_world(95, diag=(226, config_error()))
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 0)
    assert remedy_asked(step(world, "diag_r2-1")) is Remedy.PERSON


def test_a_slow_node_is_rebooted_once_and_then_returned_when_it_is_fast():
    slow, fast = (recorded(f"bandwidth/nccl_h100{x}.txt") for x in ("_ring", ""))
    world = broken_world(95, overlay=FLOORS, settings=IMAGES, loads=dict(LOADS))
    world.loads["nccl"] = (0, slow)
    world.diag = (0, LEVEL_3)
    world.drive(lambda: world.ledger.cases() and world.steps().get("nccl-1") is FAILED)
    world.loads["nccl"] = (0, fast)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.ran["reboot"] == 1
    assert world.steps()["nccl-1.2"] is VERIFIED


# --------------------------------------------------------------------------- bandwidths


def test_a_node_below_its_floor_is_not_returned():
    slow = LOADS | {"nccl": (0, recorded("bandwidth/nccl_h100_ring.txt"))}
    world = broken_world(95, overlay=FLOORS, settings=IMAGES, loads=slow)
    world.drive(lambda: world.ledger.cases() and world.steps().get("nccl-1") is FAILED)
    found = step(world, "nccl-1")
    assert "366.99 of 460" in found.detail["text"]
    assert found.detail["has_nvls"] is False
    assert remedy_asked(found) is Remedy.REBOOT_NODE
    assert world.ran["nvbandwidth"] == 0


def test_a_bandwidth_that_cannot_be_read_is_tried_again_and_then_a_persons():
    cut = LOADS | {"nccl": (0, recorded("bandwidth/nccl_cut.txt"))}
    world = broken_world(overlay=FLOORS, settings=IMAGES, loads=cut)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.ran["nccl"] == 3
    assert world.is_held_out()


def test_the_pods_of_the_bandwidth_take_all_gpus_and_end_in_time():
    world = broken_world(overlay=FLOORS, settings=IMAGES, loads=LOADS)
    world.drive(world.ended())
    specs = {name: m["spec"] for (_, name), m in world.cluster.manifests.items()}
    for kind, image in IMAGES.items():
        word = kind.removesuffix("_image")
        spec = next(s for name, s in specs.items() if f"-{word}-" in name)
        (container,) = spec["containers"]
        assert container["image"] == image
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
        assert (spec["nodeName"], spec["activeDeadlineSeconds"]) == ("a1", 900)


# --------------------------------------------------------------------------- counters


def dbe(world, value, *, node="a1"):
    metric = "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"
    world.metrics.counters.append((world.clock.now(), node, metric, f"GPU-{node}", value))


def test_errors_of_before_the_repair_do_not_hold_a_node_for_ever():
    world = FlowWorld()
    dbe(world, 7)
    world.break_node("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    counted = step(world, "check_signals-1").detail["counters"]["ecc_dbe_total"]
    assert counted == {"GPU-a1": [7.0, 7.0]}


def test_an_error_that_came_after_the_repair_holds_it():
    world = FlowWorld()
    dbe(world, 7)
    world.break_node("a1", 95)
    world.drive(world.at_stage(Stage.RUN_DIAG))
    dbe(world, 8)
    world.drive(lambda: world.steps().get("check_signals-1") is FAILED)
    found = step(world, "check_signals-1")
    assert "1 uncorrectable memory errors on GPU GPU-a1 since before the repair" in str(
        found.detail["text"]
    )
    assert remedy_asked(found) is Remedy.NEXT_RUNG


def test_signals_must_stay_clear_after_the_load_too():
    world = broken_world()
    world.drive(world.at_stage(Stage.CHECK_SIGNALS))
    world.clock.sleep(5)
    world.break_node("a1", 95)  # what the load brought to light
    world.drive(lambda: world.steps().get("check_signals-1") is FAILED)
    assert world.case().end is not CaseEnd.RETURNED


# --------------------------------------------------------------------------- at any time


def results(world, node="a1"):
    return {g.name: g.outcome for g in look_over(world.services, node)}


def test_any_node_can_be_looked_over_without_a_case_or_a_write():
    world = FlowWorld()
    found = results(world)
    assert found.pop("operator") is None
    assert set(found.values()) == {Outcome.FIXED}
    assert not world.cluster.writes()
    assert not world.ledger.cases()


@pytest.mark.parametrize(
    ("break_it", "name", "outcome"),
    [
        pytest.param(
            lambda w: w.cluster.change_node("a1", gpus_allocatable=7),
            "gpus",
            Outcome.NOT_FIXED,
            id="a GPU too few",
        ),
        pytest.param(lambda w: w.break_node("a1"), "signals", Outcome.NOT_FIXED, id="an XID"),
        pytest.param(
            lambda w: w.metrics.silent.add("a1"), "signals", Outcome.CANNOT_TELL, id="silence"
        ),
        pytest.param(
            lambda w: w.add_validator("a1", is_ready=False),
            "operator",
            Outcome.CANNOT_TELL,
            id="a validator that waits",
        ),
        pytest.param(
            lambda w: w.cluster.fail("daemon_sets"),
            "operator",
            Outcome.CANNOT_TELL,
            id="an API that does not answer",
        ),
        pytest.param(
            lambda w: setattr(w.metrics, "is_down", True),
            "counters",
            Outcome.CANNOT_TELL,
            id="no Prometheus",
        ),
    ],
)
def test_what_is_wrong_with_a_node_is_told_check_by_check(break_it, name, outcome):
    world = FlowWorld()
    break_it(world)
    assert results(world)[name] is outcome


def test_a_case_is_heeded_when_its_node_is_looked_over():
    world = FlowWorld()
    dbe(world, 7)
    world.break_node("a1", 95)
    world.drive(world.at_stage(Stage.RUN_DIAG))
    assert results(world)["counters"] is Outcome.FIXED
    dbe(world, 8)
    assert results(world)["counters"] is Outcome.NOT_FIXED
