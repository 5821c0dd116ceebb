"""One node: which findings may act, which only speak, and what is said about what nobody saw."""

from __future__ import annotations

from datetime import timedelta

import pytest

from breakfix.model import (
    DISRUPTIVE,
    Action,
    Condition,
    FailureClass,
    NodeState,
    Reading,
    RefusalReason,
)
from breakfix.policy import parse_policy
from breakfix.wiring import default_policy_text
from tests.observations import (
    NOW,
    POLICY,
    down_node,
    judged,
    reading,
    ready_node,
    record,
    verdict,
    xid,
)

C, A, R = FailureClass, Action, RefusalReason
OTHER = "GPU-bbbb"


@pytest.mark.parametrize(
    ("readings", "failure_class", "action"),
    [
        pytest.param([xid(79)], C.GPU_OFF_BUS, A.REBOOT_NODE, id="XID 79 reboots"),
        pytest.param([xid(48)], C.ECC_UNCORRECTABLE, A.RESET_GPU, id="XID 48 resets"),
        pytest.param([xid(95)], C.ECC_UNCORRECTABLE, A.RESET_GPU, id="XID 95 resets"),
        pytest.param([xid(140)], C.ECC_UNCORRECTABLE, A.RESET_GPU, id="XID 140 resets"),
        pytest.param([xid(64)], C.ECC_UNCORRECTABLE, A.RESET_GPU, id="XID 64 resets"),
        pytest.param(
            [xid(64), reading("row_remap_failed")],
            *(C.ROW_REMAP_FAILED, A.HOLD_FOR_HARDWARE),
            id="XID 64 with the failure flag waits for hardware",
        ),
        pytest.param([reading("ecc_dbe")], C.ECC_UNCORRECTABLE, A.RESET_GPU, id="a DBE resets"),
        pytest.param(
            [reading("row_remap_failed")],
            *(C.ROW_REMAP_FAILED, A.HOLD_FOR_HARDWARE),
            id="a failed row remap waits for hardware",
        ),
        pytest.param(
            [reading("gpu_count_short")], C.GPU_MISSING, A.REBOOT_NODE, id="a missing GPU reboots"
        ),
        pytest.param(
            [xid(79), reading("gpu_count_short")],
            *(C.GPU_OFF_BUS, A.REBOOT_NODE),
            id="XID 79 names what a missing GPU shows",
        ),
        pytest.param(
            [reading("recovery_reset")], C.GPU_RECOVERY, A.RESET_GPU, id="the driver asks: reset"
        ),
        pytest.param(
            [reading("recovery_reboot", 2)],
            *(C.GPU_RECOVERY, A.REBOOT_NODE),
            id="the driver asks for a reboot, so no reset is tried first",
        ),
        pytest.param(
            [reading("sram_threshold")],
            *(C.ECC_UNCORRECTABLE, A.HOLD_FOR_HARDWARE),
            id="SRAM errors beyond the vendor's threshold wait for hardware",
        ),
        pytest.param([reading("nvlink_down", 20)], C.NVLINK_DOWN, A.RESET_GPU, id="a link down"),
        pytest.param(
            [xid(74), reading("nvlink_errors", 3)],
            *(C.NVLINK_DOWN, A.RESET_GPU),
            id="XID 74 with link errors",
        ),
        pytest.param(
            [reading("recovery_reset"), reading("row_remap_pending")],
            *(C.ROW_REMAP_PENDING, A.RESET_GPU),
            id="the driver asks for the reset that a remap waits for",
        ),
        pytest.param(
            [xid(63), reading("row_remap_pending")],
            *(C.ROW_REMAP_PENDING, A.RESET_GPU),
            id="XID 63 with a remap that waits",
        ),
        pytest.param(
            [reading("readonly_filesystem", key="/"), reading("npd_readonly_filesystem", 0)],
            *(C.DISK, A.REBOOT_NODE),
            id="a read-only filesystem by two sources",
        ),
    ],
)
def test_what_is_proven_is_acted_on(
    readings: list[Reading], failure_class: FailureClass, action: Action
) -> None:
    found = verdict(*readings)
    assert (found.failure_class, found.recommended_action) == (failure_class, action)
    assert found.confidence >= 0.9
    assert found.state is NodeState.SUSPECT
    assert found.refusal is None


@pytest.mark.parametrize(
    ("readings", "failure_class"),
    [
        pytest.param([xid(74)], C.NVLINK_DOWN, id="XID 74 alone"),
        pytest.param([xid(94)], C.ECC_CONTAINED, id="XID 94 alone"),
        pytest.param([xid(63)], C.ROW_REMAP_PENDING, id="XID 63 alone"),
        pytest.param([xid(119)], C.GSP, id="XID 119 alone"),
        pytest.param([xid(120)], C.GSP, id="XID 120 alone"),
        pytest.param([xid(109)], C.GPU_RECOVERY, id="XID 109 alone"),
        pytest.param([xid(57)], C.UNCLASSIFIED, id="an XID that nobody classified"),
        pytest.param([xid("")], C.UNCLASSIFIED, id="an XID without a code"),
        pytest.param([xid("79; reboot")], C.UNCLASSIFIED, id="an XID that is no number"),
        pytest.param(
            [xid("\N{FULLWIDTH DIGIT SEVEN}9")], C.UNCLASSIFIED, id="an XID in other digits"
        ),
        pytest.param([reading("row_remap_pending")], C.ROW_REMAP_PENDING, id="a pending remap"),
        pytest.param([reading("nvlink_errors", 2)], C.NVLINK_DOWN, id="link errors"),
        pytest.param([reading("hw_slowdown", 4)], C.THERMAL, id="a hardware slowdown"),
        pytest.param([reading("pcie_replay", 90)], C.PCIE_DEGRADED, id="PCIe replays"),
        pytest.param([reading("kube_gpus_short")], C.DEVICE_PLUGIN, id="a device withheld"),
        pytest.param([reading("ib_flaps", key="mlx5_0")], C.NETWORK_PORT, id="a port that flaps"),
        pytest.param([reading("not_ready", 900)], C.NODE_NOT_READY, id="NotReady"),
        pytest.param(
            [xid(74), xid(74, signal="xid_count"), xid(74, signal="xid_total")],
            C.NVLINK_DOWN,
            id="one XID seen three ways is one witness",
        ),
        pytest.param(
            [xid(119), reading("kube_gpus_short")],
            C.GSP,
            id="an XID and the device plugin that heard it",
        ),
        pytest.param(
            [xid(74), reading("eks_hardware", 900)],
            C.NVLINK_DOWN,
            id="an XID and the node's agent that read it",
        ),
        pytest.param([xid(63), xid(94)], C.ECC_CONTAINED, id="two XIDs of one log"),
        pytest.param(
            [xid(94), reading("row_remap_pending", gpu=OTHER)],
            C.ROW_REMAP_PENDING,
            id="two hints on different GPUs",
        ),
        pytest.param(
            [reading("hw_slowdown", 4), reading("nvlink_errors", 2)],
            C.THERMAL,
            id="two hints of different troubles",
        ),
        pytest.param(
            [reading("hw_slowdown", 4), reading("gpu_hot", 95)],
            C.THERMAL,
            id="a slowdown and heat, which never counts",
        ),
    ],
)
def test_what_is_not_proven_goes_to_a_person(
    readings: list[Reading], failure_class: FailureClass
) -> None:
    found = verdict(*readings)
    assert found.recommended_action is A.REVIEW
    assert found.refusal is R.NOT_CORROBORATED
    assert found.failure_class is failure_class
    assert found.confidence < 0.9
    assert found.state is NodeState.SUSPECT


@pytest.mark.parametrize(
    "readings",
    [
        pytest.param([xid(13)], id="XID 13"),
        pytest.param([xid(31)], id="XID 31"),
        pytest.param([xid(43)], id="XID 43"),
        pytest.param([xid(45)], id="XID 45"),
        pytest.param([reading("gpu_hot", 95)], id="a hot GPU"),
        pytest.param([reading("thermal_violation", 0.4)], id="throttled for heat"),
        pytest.param(
            [xid(c) for c in (13, 31, 43, 45)]
            + [reading("gpu_hot", 95), reading("thermal_violation", 0.9)],
            id="all of these together",
        ),
    ],
)
def test_what_is_never_a_reason_leaves_the_node_healthy(readings: list[Reading]) -> None:
    found = verdict(*readings)
    assert found.recommended_action is A.NONE
    assert (found.state, found.failure_class) == (NodeState.HEALTHY, None)
    assert len(found.findings) == len(readings)
    assert all(f.action is A.NONE for f in found.findings)


def test_nothing_said_is_healthy() -> None:
    found = verdict()
    assert (found.state, found.recommended_action) == (NodeState.HEALTHY, A.NONE)
    assert (found.findings, found.unknown) == ((), ())


def test_a_consequence_follows_its_cause() -> None:
    found = verdict(xid(79), xid(74), xid(119))
    assert found.failure_class is C.GPU_OFF_BUS
    assert {f.failure_class for f in found.findings} == {C.GPU_OFF_BUS}
    assert found.confidence == pytest.approx(0.97)
    assert "follows XID 79" in found.reason


def test_a_consequence_on_another_gpu_is_trouble_of_its_own() -> None:
    found = verdict(xid(79), xid(119, gpu=OTHER))
    assert {f.failure_class for f in found.findings} == {C.GPU_OFF_BUS, C.GSP}


@pytest.mark.parametrize(
    ("attempts", "action"),
    [(0, A.RESET_GPU), (1, A.REBOOT_NODE), (2, A.HOLD_FOR_HARDWARE), (9, A.HOLD_FOR_HARDWARE)],
)
def test_each_repair_climbs_the_ladder(attempts: int, action: Action) -> None:
    records = {"gpu-1": record(NodeState.RETURNING, attempts=attempts)}
    assert verdict(xid(48), records=records).recommended_action is action


@pytest.mark.parametrize("state", sorted(set(NodeState) - {NodeState.HEALTHY, NodeState.SUSPECT}))
@pytest.mark.parametrize("readings", [(), (xid(79),)], ids=["silent", "broken"])
def test_a_node_in_hand_keeps_its_state(state: NodeState, readings: tuple[Reading, ...]) -> None:
    assert verdict(*readings, records={"gpu-1": record(state)}).state is state


def test_a_suspect_whose_trouble_is_gone_is_healthy_again() -> None:
    assert verdict(records={"gpu-1": record(NodeState.SUSPECT)}).state is NodeState.HEALTHY


def test_a_class_that_is_off_is_only_shown() -> None:
    off = parse_policy(default_policy_text(), "classes: {gpu_off_bus: {mode: 'off'}}")
    found = verdict(xid(79), policy=off)
    assert (found.recommended_action, found.refusal) == (A.REVIEW, R.MODE_RECOMMEND)


# ------------------------------------------------------------------ telemetry


def test_a_node_that_lost_its_telemetry_is_neither_cleared_nor_condemned() -> None:
    other = ready_node("gpu-2")
    found = verdict(nodes=[ready_node(), other], unseen={"gpu_count_short": ["gpu-1"]})
    assert (found.failure_class, found.recommended_action) == (C.TELEMETRY_LOST, A.NONE)
    assert (found.state, found.confidence) == (NodeState.SUSPECT, 0.0)
    assert found.unknown == ("gpu_count_short",)
    assert "gpu_count_short" in found.reason


def test_lost_telemetry_holds_what_is_still_seen_for_a_person() -> None:
    nodes = [ready_node(), ready_node("gpu-2")]
    found = verdict(xid(79), nodes=nodes, unseen={"gpu_count_short": ["gpu-1"]})
    assert (found.recommended_action, found.refusal) == (A.REVIEW, R.TELEMETRY)
    assert found.failure_class is C.TELEMETRY_LOST
    assert "XID 79" in found.reason


def test_a_required_signal_that_cannot_be_read_blinds_the_fleet() -> None:
    found = verdict(xid(79), errors={"xid_last": "Prometheus did not answer"})
    assert found.failure_class is C.TELEMETRY_LOST
    assert "xid_last" in found.unknown


def test_no_metrics_at_all_blind_the_fleet() -> None:
    found = verdict(uncollected=[s.name for s in POLICY.signals if not s.is_kubernetes])
    assert found.failure_class is C.TELEMETRY_LOST


def test_fields_that_nobody_collects_are_unknown_and_no_loss() -> None:
    found = verdict(uncollected=["ecc_dbe", "row_remap_pending"])
    assert found.failure_class is None
    assert found.unknown == ("ecc_dbe", "row_remap_pending")


@pytest.mark.parametrize(
    ("signal", "is_lost"),
    [
        pytest.param("ecc_dbe", True, id="it could condemn the node"),
        pytest.param("ib_port_down", True, id="it could make a person look"),
        pytest.param("gpu_hot", False, id="it never says anything of the node"),
        pytest.param("istio_errors", False, id="it speaks of the workload"),
    ],
)
def test_a_signal_whose_query_failed_clears_nobody(signal: str, is_lost: bool) -> None:
    found = verdict(
        errors={signal: "Prometheus did not answer"}, records={"gpu-1": record(NodeState.SUSPECT)}
    )
    assert (found.failure_class is C.TELEMETRY_LOST) == is_lost
    assert (found.state is NodeState.SUSPECT) == is_lost
    assert found.recommended_action is A.NONE
    assert signal in found.unknown


def test_a_signal_whose_query_failed_does_not_hide_what_others_say() -> None:
    found = verdict(xid(79), errors={"ecc_dbe": "Prometheus did not answer"})
    assert (found.failure_class, found.recommended_action) == (C.GPU_OFF_BUS, A.REBOOT_NODE)


def test_an_agent_that_is_installed_nowhere_is_not_unknown() -> None:
    assert verdict(uncollected=["eks_hardware", "aks_gpu_missing"]).unknown == ()


# ------------------------------------------------------------------ NotReady


SILENT = {s: ["gpu-1"] for s in ("gpu_count_short", "xid_last", "readonly_filesystem")}
FLEET = [down_node(), ready_node("gpu-2"), ready_node("gpu-3")]


def test_of_a_node_that_kubernetes_calls_ready_silence_is_no_witness() -> None:
    found = verdict(reading("ksm_not_ready"), nodes=[ready_node(), *FLEET[1:]], unseen=SILENT)
    assert (found.failure_class, found.recommended_action) == (C.TELEMETRY_LOST, A.REVIEW)


def test_a_node_that_is_gone_for_several_sources_is_rebooted() -> None:
    found = verdict(reading("not_ready", 900), nodes=FLEET, unseen=SILENT)
    assert (found.failure_class, found.recommended_action) == (C.NODE_NOT_READY, A.REBOOT_NODE)


@pytest.mark.parametrize(
    "unseen",
    [
        pytest.param({"gpu_count_short": ["gpu-1"], "xid_last": ["gpu-1"]}, id="its GPU exporter"),
        pytest.param({"readonly_filesystem": ["gpu-1"]}, id="its node exporter"),
    ],
)
def test_not_ready_and_one_silent_exporter_is_not_enough(unseen: dict[str, list[str]]) -> None:
    found = verdict(reading("not_ready", 900), nodes=FLEET, unseen=unseen)
    assert found.recommended_action is A.REVIEW


def test_exporters_that_are_silent_everywhere_say_nothing_about_a_node() -> None:
    gone = {s: ["gpu-1", "gpu-2"] for s in SILENT}
    found = verdict(reading("not_ready", 900), nodes=FLEET, unseen=gone)
    assert found.recommended_action is A.REVIEW


def test_silence_alone_is_never_a_reason() -> None:
    found = verdict(nodes=[ready_node(), *FLEET[1:]], unseen=SILENT)
    assert found.recommended_action is A.NONE


# ------------------------------------------------------------------ holds


FRESH = [
    pytest.param({"created_at": NOW - timedelta(seconds=60)}, {}, id="just created"),
    pytest.param(
        {"conditions": (Condition("Ready", "True", since=NOW - timedelta(seconds=60)),)},
        {},
        id="just Ready, and nobody tells the boot",
    ),
    pytest.param({}, {"boot_time": repr(NOW.timestamp() - 60)}, id="just booted"),
    pytest.param(
        {},
        {"boot_time": f"{NOW.timestamp() - 9e5!r},{NOW.timestamp() - 60!r}"},
        id="just booted, and the boot before is still told",
    ),
]


@pytest.mark.parametrize(("changes", "facts"), FRESH)
def test_states_do_not_count_on_a_node_that_just_came_up(
    changes: dict[str, object], facts: dict[str, str]
) -> None:
    how = {"nodes": [ready_node(**changes)], "facts": {"gpu-1": facts}}
    found = verdict(reading("gpu_count_short"), **how)
    assert (found.recommended_action, found.refusal) == (A.NONE, R.COOLDOWN)
    assert found.state is NodeState.SUSPECT
    assert verdict(xid(79), **how).recommended_action is A.REBOOT_NODE


def test_fewer_gpus_than_its_like_is_for_people_until_another_source_speaks() -> None:
    alone = verdict(reading("gpus_unlike_peers"))
    assert (alone.recommended_action, alone.refusal) == (A.REVIEW, R.NOT_CORROBORATED)
    assert verdict(reading("gpus_unlike_peers"), xid(79)).failure_class is C.GPU_OFF_BUS


@pytest.mark.parametrize("status", ["True", "False"])
def test_a_node_that_goes_to_and_fro_is_judged(status: str) -> None:
    conditions = (Condition("Ready", status, since=NOW - timedelta(seconds=60)),)
    found = verdict(
        reading("gpu_count_short"),
        nodes=[ready_node(conditions=conditions)],
        facts={"gpu-1": {"boot_time": repr(NOW.timestamp() - 86_400)}},
    )
    assert (found.failure_class, found.recommended_action) == (C.GPU_MISSING, A.REBOOT_NODE)


@pytest.mark.parametrize("boot_time", ["", "nan", "inf", "-5", "1e300", "yesterday"])
def test_a_boot_time_that_is_none_holds_nothing(boot_time: str) -> None:
    found = verdict(reading("gpu_count_short"), facts={"gpu-1": {"boot_time": boot_time}})
    assert found.recommended_action is A.REBOOT_NODE


@pytest.mark.parametrize("is_silent", [True, False], ids=["silent", "broken"])
def test_a_driver_upgrade_has_the_node_in_its_hands(is_silent: bool) -> None:
    node = ready_node(labels={"nvidia.com/gpu-driver-upgrade-state": "pod-restart-required"})
    nodes = [node, ready_node("gpu-2")]
    unseen = {"gpu_count_short": ["gpu-1"]} if is_silent else {}
    found = verdict(*([] if is_silent else [xid(79)]), nodes=nodes, unseen=unseen)
    assert (found.recommended_action, found.refusal) == (A.NONE, R.OTHER_OWNER)
    assert found.failure_class is not C.TELEMETRY_LOST


@pytest.mark.parametrize("state", ["", "upgrade-required", "upgrade-done"])
def test_an_upgrade_that_waits_or_is_over_holds_nothing(state: str) -> None:
    node = ready_node(labels={"nvidia.com/gpu-driver-upgrade-state": state})
    assert verdict(xid(79), nodes=[node]).recommended_action in DISRUPTIVE


def test_only_gpu_nodes_are_judged() -> None:
    made = judged(nodes=[ready_node(), ready_node("web-1")])
    assert [v.node for v in made.verdicts] == ["gpu-1", "web-1"]  # no selection: all of them


def test_reasons_are_sentences_for_a_person() -> None:
    text = verdict(xid(79), reading("gpu_count_short")).reason
    assert text == (
        "gpu_off_bus with confidence 1.00 (wanted 0.90): XID 79 on GPU GPU-aaaa (GPU has fallen off"
        " the bus); 1 GPUs fewer report than the node should have."
        " Recommended: reboot_node, repair 1"
    )
