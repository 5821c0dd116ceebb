from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from breakfix.act import repair
from breakfix.act.checks import Load, LoadKind, start_load
from breakfix.act.guard import Expected
from breakfix.act.pod_repairs import PodRepairs
from breakfix.act.pods import REBOOTED_ALREADY, PodSettings
from breakfix.adapters.repairs.transport import LeftAlone
from breakfix.errors import CircuitOpen, ClusterError, Forbidden, Refused, StaleFence
from breakfix.model import Action, Condition, Owner, RefusalReason, StepStatus
from tests.fakes_repairs import FakeProvider, WorkerDied
from tests.unit.act_world import World, make_world

SETTINGS = PodSettings()
EXPECTED = Expected()


def wish(world: World, action: Action, *, nth: int = 1, gpus=()) -> repair.Repair:
    step = repair.step_name(world.acting, world.case, f"repair-{action}", nth)
    provider = PodRepairs(world.cluster, SETTINGS)
    return repair.Repair(action, provider, step, gpus=tuple(gpus))


def dispatched(world: World, action: Action, **more):
    return repair.dispatch(world.acting, world.case, EXPECTED, wish(world, action, **more))


def reboot(world: World, **more):
    return dispatched(world, Action.REBOOT_NODE, **more)


def reset(world: World, **more):
    return dispatched(world, Action.RESET_GPU, **more)


def settled(world: World, step, action: Action):
    return repair.settle(world.acting, world.case, step, wish(world, action))


def diag(world: World, **more):
    load = Load(LoadKind.DIAG, gpus=8, level=more.get("level", 2))
    name = repair.step_name(world.acting, world.case, "diag")
    return start_load(world.acting, world.case, EXPECTED, SETTINGS, load=load, name=name)


def restart_plugin(world: World):
    return repair.restart_device_plugin(world.acting, world.case, EXPECTED, SETTINGS)


def quarantined() -> World:
    return make_world(is_quarantined=True)


def manifest(world: World) -> dict:
    (one,) = world.cluster.manifests.values()
    return dict(one)


def created(world: World) -> int:
    return sum(method == "create_pod" for method, _ in world.cluster.calls)


@pytest.mark.parametrize("dispatch", [reboot, reset, diag])
def test_pods_are_pinned_bounded_and_named_for_their_step(dispatch):
    world = quarantined()
    step = dispatch(world)
    it = manifest(world)
    assert step.status is StepStatus.DISPATCHED
    assert step.detail["pod"] == f"breakfix/{it['metadata']['name']}"
    assert it["metadata"]["name"].startswith(f"breakfix-{world.case.id}-")
    assert len(it["metadata"]["name"]) <= 63
    assert it["metadata"]["labels"]["breakfix.dev/case"] == world.case.id
    spec = it["spec"]
    assert (spec["nodeName"], spec["restartPolicy"]) == ("gpu-1", "Never")
    assert spec["activeDeadlineSeconds"] == 900
    assert {t["key"] for t in spec["tolerations"]} == {
        "breakfix.dev/quarantine",
        "nvidia.com/gpu",
        "node.kubernetes.io/unschedulable",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    }


@pytest.mark.parametrize("dispatch", [reboot, reset, diag])
def test_dispatching_again_finds_the_first_pod(dispatch):
    world = quarantined()
    first, second = dispatch(world), dispatch(world)
    assert first == second
    assert len(world.cluster.manifests) == 1


@pytest.mark.parametrize("dispatch", [reboot, reset, diag])
def test_a_crash_between_record_and_pod_is_made_good(dispatch):
    world = quarantined()
    world.cluster.fail("create_pod")
    with pytest.raises(ClusterError):
        dispatch(world)
    assert len(world.ledger.steps(world.case.id)) == 2  # the intention was recorded first
    dispatch(world)
    assert len(world.cluster.manifests) == 1


@pytest.mark.parametrize("action", [Action.REBOOT_NODE, Action.RESET_GPU])
def test_what_one_provider_may_have_sent_is_not_sent_by_the_one_that_settings_name_now(action):
    """A BMC was asked and its worker died; restarted with other settings, a pod would do it too."""
    world = quarantined()
    wanted = wish(world, action)
    died = replace(wanted, provider=FakeProvider(world, "redfish", False, crashes=["before"]))
    with pytest.raises(WorkerDied):
        repair.dispatch(world.acting, world.case, EXPECTED, died)
    step = repair.dispatch(world.acting, world.case, EXPECTED, wanted)
    assert not world.cluster.manifests
    assert settled(world, step, action) is None  # nor is the pod asked about what it never did
    assert repair.overdue(world.acting, world.case, step).status is StepStatus.UNKNOWN


class LeftAloneOnce(FakeProvider):
    """Its circuit opens between `prepare` and the request, and lets the next one through."""

    is_left_alone = True

    def dispatch(self, request, handle):
        if self.is_left_alone:
            self.is_left_alone = False
            raise LeftAlone("webhook hooks.example is left alone")
        return super().dispatch(request, handle)


def sent_by(world: World, provider) -> repair.Repair:
    step = repair.step_name(world.acting, world.case, "repair-replace_node")
    return repair.Repair(Action.REPLACE_NODE, provider, step)


def test_a_request_that_a_circuit_held_is_sent_by_whoever_looks_next():
    world = quarantined()
    wanted = sent_by(world, LeftAloneOnce(world, mood="lies"))
    with pytest.raises(CircuitOpen):
        repair.dispatch(world.acting, world.case, EXPECTED, wanted)
    step = repair.dispatch(world.acting, world.case, EXPECTED, wanted)
    assert step.status is StepStatus.DISPATCHED
    assert [r.is_replay for r in wanted.provider.sent] == [True]


def test_a_request_that_a_circuit_held_has_failed_where_nobody_compares():
    world = quarantined()
    wanted = sent_by(world, LeftAloneOnce(world, name="redfish", can_compare=False))
    step = repair.dispatch(world.acting, world.case, EXPECTED, wanted)
    assert (step.status, wanted.provider.sent) == (StepStatus.FAILED, [])


def test_a_circuit_that_is_open_already_begins_no_step():
    world = quarantined()

    class LeftAloneBefore(FakeProvider):
        def prepare(self, request):
            raise LeftAlone("bmc bmc-7 is left alone")

    wanted = sent_by(world, LeftAloneBefore(world, name="redfish", can_compare=False))
    with pytest.raises(CircuitOpen):
        repair.dispatch(world.acting, world.case, EXPECTED, wanted)
    assert wanted.step not in {s.name for s in world.ledger.steps(world.case.id)}


def test_what_another_task_has_settled_is_not_overdue():
    world = quarantined()
    step = reboot(world)
    world.cluster.reboot("gpu-1")
    world.cluster.change_node("gpu-1", conditions=(Condition("Ready", "False"),))
    assert settled(world, step, Action.REBOOT_NODE) is None
    stale = world.step("repair-reboot_node-1")
    world.cluster.change_node("gpu-1", conditions=(Condition("Ready", "True"),))
    assert settled(world, stale, Action.REBOOT_NODE).status is StepStatus.DONE
    assert repair.overdue(world.acting, world.case, stale).status is StepStatus.DONE


@pytest.mark.parametrize("dispatch", [reboot, reset, diag, restart_plugin])
def test_nothing_is_done_to_a_node_that_is_no_longer_ours(dispatch):
    world = quarantined()
    world.cluster.change_node("gpu-1", is_unschedulable=False)
    with pytest.raises(Refused):
        dispatch(world)
    assert not world.cluster.writes()


@pytest.mark.parametrize("dispatch", [reboot, reset, restart_plugin])
def test_the_first_level_of_halt_holds_repairs(dispatch):
    world = quarantined()
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "disruption"}
    with pytest.raises(Refused):
        dispatch(world)


def test_but_not_the_validation():
    world = quarantined()
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "disruption"}
    assert diag(world)


# --------------------------------------------------------------------------- reboot


def test_a_reboot_carries_the_boot_it_was_decided_for():
    world = quarantined()
    reboot(world)
    container = manifest(world)["spec"]["containers"][0]
    assert container["env"] == [{"name": "EXPECTED_BOOT_ID", "value": "boot-gpu-1-1"}]
    assert str(REBOOTED_ALREADY) in container["command"][-1]
    assert manifest(world)["spec"]["hostPID"] is True
    assert container["securityContext"] == {"privileged": True}


def test_a_node_that_has_rebooted_meanwhile_is_not_rebooted():
    world = quarantined()
    world.cluster.reboot("gpu-1")
    with pytest.raises(Refused) as caught:
        reboot(world)
    assert caught.value.reason is RefusalReason.NODE_CHANGED
    assert created(world) == 0


def test_a_reboot_is_done_when_the_boot_id_changed_and_the_node_is_ready():
    world = quarantined()
    step = reboot(world)
    settle = lambda: settled(world, step, Action.REBOOT_NODE)  # noqa: E731
    namespace, name = repair.pod_of(step)
    world.cluster.finish_pod(namespace, name, 0)
    assert settle() is None  # the pod proves nothing
    world.cluster.reboot("gpu-1")
    ready = world.cluster.node("gpu-1").conditions
    world.cluster.change_node("gpu-1", conditions=(Condition("Ready", "False"),))
    assert settle() is None
    world.cluster.change_node("gpu-1", conditions=ready)
    done = settle()
    assert done is not None
    assert done.status is StepStatus.DONE
    assert done.detail["boot_id_after"] == "boot-gpu-1-1+"


def test_a_reboot_that_happened_is_not_repeated_by_a_cleared_task():
    world = quarantined()
    reboot(world)
    world.cluster.remove_pod(*repair.pod_of(world.step("repair-reboot_node-1")))
    world.cluster.reboot("gpu-1")
    calls = created(world)
    assert reboot(world).status is StepStatus.DISPATCHED
    assert created(world) == calls


def test_the_next_reboot_expects_the_boot_after_the_last_one():
    world = quarantined()
    step = reboot(world)
    world.cluster.reboot("gpu-1")
    settled(world, step, Action.REBOOT_NODE)
    world.cluster.manifests.clear()
    again = reboot(world, nth=2)
    assert again.name == "repair-reboot_node-1.2"
    assert again.detail["boot_id"] == "boot-gpu-1-1+"


def test_a_deadline_without_evidence_is_unknown_not_done():
    world = quarantined()
    step = reboot(world)
    ended = repair.give_up(world.acting, world.case, step, "no other boot id in 45 minutes")
    assert ended.status is StepStatus.UNKNOWN
    assert repair.give_up(world.acting, world.case, ended, "again") is ended


# --------------------------------------------------------------------------- reset and diag


@pytest.mark.parametrize(
    ("gpus", "tail"),
    [
        ((), ["nvidia-smi", "--gpu-reset"]),
        (("3",), ["nvidia-smi", "--gpu-reset", "-i", "3"]),
        (
            ("0", "GPU-6a5b0000-0000-0000-0000-00000000000f"),
            ["nvidia-smi", "--gpu-reset", "-i", "0,GPU-6a5b0000-0000-0000-0000-00000000000f"],
        ),
    ],
)
def test_a_reset_names_the_gpus(gpus, tail):
    world = quarantined()
    reset(world, gpus=gpus)
    command = manifest(world)["spec"]["containers"][0]["command"]
    assert shlex.split(command[-1].partition(" -- ")[2]) == tail


def test_a_reset_is_for_the_boot_it_was_decided_for():
    world = quarantined()
    reset(world)
    container = manifest(world)["spec"]["containers"][0]
    assert container["env"] == [{"name": "EXPECTED_BOOT_ID", "value": "boot-gpu-1-1"}]
    assert f"|| exit {REBOOTED_ALREADY}" in container["command"][-1]
    world.cluster.reboot("gpu-1")
    with pytest.raises(Refused) as caught:
        reset(world)
    assert caught.value.reason is RefusalReason.NODE_CHANGED


@pytest.mark.parametrize("gpu", ["--help", "0;reboot", "", "GPU-", "$(id)"])
def test_names_from_outside_cannot_become_options(gpu):
    world = quarantined()
    with pytest.raises(ValueError, match="not a GPU"):
        reset(world, gpus=[gpu])
    assert created(world) == 0


@pytest.mark.parametrize(("level", "seconds"), [(1, 300), (2, 900), (3, 2700), (4, 10800)])
def test_a_diag_takes_all_gpus_and_its_levels_time(level, seconds):
    world = quarantined()
    diag(world, level=level)
    spec = manifest(world)["spec"]
    assert spec["activeDeadlineSeconds"] == seconds
    assert spec["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "8"}}
    assert f"dcgmi diag -r {level} -j" in spec["containers"][0]["command"][-1]


@pytest.mark.parametrize(("exit_code", "status"), [(0, StepStatus.DONE), (226, StepStatus.FAILED)])
def test_a_pod_is_settled_by_its_exit_code(exit_code, status):
    world = quarantined()
    step = reset(world)
    assert settled(world, step, Action.RESET_GPU) is None
    world.cluster.finish_pod(*repair.pod_of(step), exit_code)
    ended = settled(world, step, Action.RESET_GPU)
    assert ended is not None
    assert (ended.status, ended.detail["exit_code"]) == (status, exit_code)
    assert reset(world) == ended  # settled: dispatching again changes nothing


def test_a_pod_that_is_gone_leaves_the_step_unknown():
    world = quarantined()
    step = reset(world)
    world.cluster.remove_pod(*repair.pod_of(step))
    ended = settled(world, step, Action.RESET_GPU)
    assert ended is not None
    assert ended.status is StepStatus.UNKNOWN


# --------------------------------------------------------------------------- pods withdrawn


def withdraw(world: World) -> list[str]:
    return repair.withdraw_pods(world.acting, world.case)


@pytest.mark.parametrize("is_given_up", [False, True], ids=["dispatched", "given up"])
@pytest.mark.parametrize("dispatch", [reboot, reset, diag])
def test_a_pod_that_may_yet_act_is_deleted_by_its_uid(dispatch, is_given_up):
    world = quarantined()
    step = dispatch(world)
    if is_given_up:
        repair.give_up(world.acting, world.case, step, "too late")
    uid = world.cluster.pod(*repair.pod_of(step)).uid
    assert withdraw(world) == [repair.pod_of(step)[1]]
    assert ("delete_pod", (*repair.pod_of(step), uid)) in world.cluster.calls
    assert repair.pod_of(step) not in world.cluster._pods
    assert "pod.withdrawing" in world.events()
    assert withdraw(world) == []


def test_a_pod_that_has_ended_keeps_its_log():
    world = quarantined()
    step = reset(world)
    world.cluster.finish_pod(*repair.pod_of(step), 1)
    assert withdraw(world) == []
    assert repair.pod_of(step) in world.cluster._pods


def test_a_device_plugins_pod_is_not_ours_to_withdraw():
    world = with_plugin()
    world.cluster.pods_go_at_once = False
    restart_plugin(world)
    assert withdraw(world) == []
    assert ("gpu-operator", "plugin-a") in world.cluster._pods


def test_an_error_that_may_pass_is_raised_so_that_the_ending_is_tried_again():
    world = quarantined()
    reboot(world)
    world.cluster.fail("delete_pod")
    with pytest.raises(ClusterError):
        withdraw(world)
    assert len(withdraw(world)) == 1


def test_what_the_cluster_forbids_is_audited():
    world = quarantined()
    reboot(world)
    world.cluster.fail("delete_pod", Forbidden("pods are not to be deleted"))
    assert withdraw(world) == []
    assert "pod.not_withdrawn" in world.events()


def test_the_pods_of_a_case_that_changed_hands_are_left_to_its_new_owner():
    world = quarantined()
    reboot(world)
    world.take_over()
    with pytest.raises(StaleFence):
        withdraw(world)
    assert len(world.cluster.manifests) == 1
    assert "pod.withdrawing" not in world.events()


# --------------------------------------------------------------------------- device plugin


def with_plugin(**changes) -> World:
    world = quarantined()
    defaults = {
        "namespace": "gpu-operator",
        "owners": (Owner("DaemonSet", "plugin", "u"),),
        "labels": {"app": "nvidia-device-plugin-daemonset"},
    }
    world.cluster.add_pod("plugin-a", **{**defaults, **changes})
    return world


def test_the_plugins_pod_is_deleted_by_its_uid_and_awaited():
    world = with_plugin()
    step = restart_plugin(world)
    assert step.detail["uid"] == "uid-plugin-a"
    settle = lambda: settled(world, step, Action.RESTART_DEVICE_PLUGIN)  # noqa: E731
    assert settle() is None
    world.cluster.add_pod(
        "plugin-b",
        namespace="gpu-operator",
        owners=(Owner("DaemonSet", "plugin", "u"),),
        labels={"app": "nvidia-device-plugin-daemonset"},
    )
    done = settle()
    assert done is not None
    assert done.status is StepStatus.DONE


def test_the_new_plugin_pod_is_not_deleted_by_a_second_run():
    world = with_plugin()
    restart_plugin(world)
    world.cluster.add_pod(
        "plugin-a",
        uid="uid-new",
        namespace="gpu-operator",
        owners=(Owner("DaemonSet", "plugin", "u"),),
        labels={"app": "nvidia-device-plugin-daemonset"},
    )
    restart_plugin(world)
    assert world.cluster.pod("gpu-operator", "plugin-a").uid == "uid-new"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"labels": {"app": "other"}}, id="no pod has the label"),
        pytest.param({"owners": ()}, id="nothing would bring it back"),
        pytest.param({"is_terminating": True}, id="it is going already"),
    ],
)
def test_a_node_without_a_plugin_pod_is_refused(changes):
    world = with_plugin(**changes)
    with pytest.raises(Refused) as caught:
        restart_plugin(world)
    assert caught.value.reason is RefusalReason.REASON_GONE
    assert world.step("repair-restart_device_plugin-1") is None


def test_another_label_of_the_plugin_is_known_too():
    world = with_plugin(labels={"app.kubernetes.io/name": "nvidia-device-plugin"})
    assert restart_plugin(world).detail["pod"] == "gpu-operator/plugin-a"
