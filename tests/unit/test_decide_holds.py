"""Who else has a node, and what a fresh change makes doubtful."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from breakfix.errors import SettingsError
from breakfix.model import (
    DISRUPTIVE,
    Action,
    Condition,
    FailureClass,
    NodeState,
    Reading,
    RefusalReason,
    Taint,
)
from breakfix.policy import Policy, parse_policy
from breakfix.wiring import default_policy_text
from tests.observations import GPU, LONG_AGO, NOW, judged, reading, ready_node, verdict, xid

A, C, R = Action, FailureClass, RefusalReason
READY = Condition("Ready", "True", since=LONG_AGO)


def unix(delta: timedelta) -> str:
    return str(int((NOW + delta).timestamp()))


# ------------------------------------------------------------------ maintenance and other owners


OWNED = [
    pytest.param(
        {"conditions": (READY, Condition("VMEventScheduled", "True"))},
        R.MAINTENANCE,
        id="AKS announces an event of the machine",
    ),
    pytest.param(
        {"conditions": (READY, Condition("CSPMaintenance", "True"))},
        R.MAINTENANCE,
        id="NVSentinel heard of the cloud's maintenance",
    ),
    pytest.param(
        {"labels": {"cloud.google.com/scheduled-maintenance-time": unix(timedelta(minutes=20))}},
        R.MAINTENANCE,
        id="GKE's maintenance begins in 20 minutes",
    ),
    pytest.param(
        {"labels": {"cloud.google.com/scheduled-maintenance-time": unix(timedelta(hours=-3))}},
        R.MAINTENANCE,
        id="GKE's maintenance began 3 hours ago",
    ),
    pytest.param(
        {"labels": {"cloud.google.com/active-node-maintenance": "ONGOING"}},
        R.OTHER_OWNER,
        id="GKE is at work",
    ),
    pytest.param(
        {"annotations": {"weave.works/kured-reboot-in-progress": "2026-03-01T11:58:00Z"}},
        R.OTHER_OWNER,
        id="kured reboots it",
    ),
    *(
        pytest.param({"taints": (Taint(key, "NoSchedule"),)}, R.OTHER_OWNER, id=key)
        for key in (
            "ToBeDeletedByClusterAutoscaler",
            "node.cloudprovider.kubernetes.io/shutdown",
            "karpenter.sh/disrupted",
            "medik8s.io/drain",
        )
    ),
]


@pytest.mark.parametrize(("changes", "reason"), OWNED)
def test_a_node_in_other_hands_is_shown_and_left_alone(
    changes: dict[str, Any], reason: RefusalReason
) -> None:
    found = verdict(xid(79), nodes=[ready_node(**changes)])
    assert (found.recommended_action, found.refusal) == (A.NONE, reason)
    assert found.failure_class is C.GPU_OFF_BUS
    assert "XID 79" in found.reason


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"conditions": (READY, Condition("VMEventScheduled", "False"))}, id="no event"
        ),
        pytest.param(
            {"labels": {"cloud.google.com/scheduled-maintenance-time": unix(timedelta(days=7))}},
            id="maintenance in a week",
        ),
        pytest.param(
            {"labels": {"cloud.google.com/scheduled-maintenance-time": unix(timedelta(hours=-5))}},
            id="maintenance long ago",
        ),
        *(
            pytest.param(
                {"labels": {"cloud.google.com/scheduled-maintenance-time": text}}, id=f"{text!r}"
            )
            for text in ("", "soon", "nan", "inf", "-1", "1e300", "2026-03-01T12:00:00")
        ),
        pytest.param({"taints": (Taint("nvidia.com/gpu", "NoSchedule"),)}, id="the usual taint"),
    ],
)
def test_a_node_in_nobodys_hands_is_judged(changes: dict[str, Any]) -> None:
    assert verdict(xid(79), nodes=[ready_node(**changes)]).recommended_action in DISRUPTIVE


def windows(text: str) -> Policy:
    return parse_policy(default_policy_text(), "limits: {maintenance: [" + text + "]}")


WINDOW = 'from: "2026-03-01T11:00:00Z", to: "2026-03-01T13:00:00+00:00", reason: new cables'


@pytest.mark.parametrize(
    ("meant", "is_held"),
    [
        pytest.param("", True, id="the whole fleet"),
        pytest.param(", scope: {rack: r7}", True, id="its rack"),
        pytest.param(", scope: {rack: r8}", False, id="another rack"),
        pytest.param(", scope: {rack: r7, pool: other}", False, id="its rack, another pool"),
        pytest.param(", nodes: [gpu-1]", True, id="its name"),
        pytest.param(", nodes: [gpu-2]", False, id="another name"),
        pytest.param(", labels: {row: a}", True, id="its label"),
        pytest.param(", labels: {row: b}", False, id="another label"),
    ],
)
def test_a_window_that_people_announce_holds_its_nodes(meant: str, is_held: bool) -> None:
    node = ready_node(rack="r7", labels={"row": "a"})
    found = verdict(xid(79), nodes=[node], policy=windows("{" + WINDOW + meant + "}"))
    assert (found.refusal is R.MAINTENANCE) is is_held
    assert ("new cables" in found.reason) is is_held


@pytest.mark.parametrize(
    "when",
    [
        pytest.param('from: "2026-03-01T12:00:01Z", to: "2026-03-01T13:00:00Z"', id="later"),
        pytest.param('from: "2026-03-01T11:00:00Z", to: "2026-03-01T12:00:00Z"', id="over"),
    ],
)
def test_a_window_holds_only_while_it_lasts(when: str) -> None:
    policy = windows("{" + when + ", reason: x}")
    assert verdict(xid(79), policy=policy).recommended_action in DISRUPTIVE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            'from: "2026-03-01T13:00:00Z", to: "2026-03-01T11:00:00Z", reason: x',
            "ends before it begins",
            id="the wrong way round",
        ),
        pytest.param(
            'from: "2026-03-01T11:00:00", to: "2026-03-01T13:00:00", reason: x',
            "timezone",
            id="no time zone",
        ),
    ],
)
def test_a_window_that_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        windows("{" + text + "}")


def test_the_margins_around_announced_maintenance_are_the_policys() -> None:
    node = ready_node(
        labels={"cloud.google.com/scheduled-maintenance-time": unix(timedelta(hours=1))}
    )
    early = parse_policy(default_policy_text(), "limits: {maintenance_before: 1h}")
    assert verdict(xid(79), nodes=[node]).refusal is None
    assert verdict(xid(79), nodes=[node], policy=early).refusal is R.MAINTENANCE


# ------------------------------------------------------------------ fresh changes


DRIVER = {"gpu-1": {"changed_driver_version": "595.91"}}


@pytest.mark.parametrize(
    "readings",
    [
        pytest.param([xid(119)], id="a GSP timeout"),
        pytest.param([reading("gpu_count_short")], id="a GPU that is missing"),
        pytest.param([reading("recovery_reset")], id="a recovery action"),
        pytest.param([xid(143), reading("recovery_reset")], id="the same, with its XID"),
        pytest.param([reading("fabric_manager", 4)], id="the fabric manager"),
        pytest.param([reading("kube_gpus_short")], id="a withheld device"),
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        "changed_driver_version",
        "changed_kernel_version",
        "changed_kubelet_version",
        "changed_os_image",
        "changed_gpu_stack",
    ],
)
def test_what_a_bad_change_looks_like_is_for_people(readings: list[Reading], change: str) -> None:
    found = verdict(*readings, facts={"gpu-1": {change: "595.91"}})
    assert (found.recommended_action, found.refusal) == (A.REVIEW, R.RECENT_CHANGE)
    assert found.failure_class is C.CHANGE_INDUCED
    assert "595.91" in found.reason


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        pytest.param([reading("ecc_dbe")], C.ECC_UNCORRECTABLE, id="a DBE"),
        pytest.param([reading("row_remap_failed")], C.ROW_REMAP_FAILED, id="a failed remap"),
        pytest.param([xid(48), reading("ecc_dbe")], C.ECC_UNCORRECTABLE, id="XID 48 and a DBE"),
        pytest.param(
            [xid(79), reading("gpu_count_short")], C.GPU_OFF_BUS, id="XID 79 and a missing GPU"
        ),
        pytest.param(
            [reading("ecc_dbe"), xid(119), reading("gpu_count_short")],
            C.ECC_UNCORRECTABLE,
            id="a DBE among what the change brought",
        ),
    ],
)
def test_what_only_hardware_brings_about_counts_after_a_change(
    readings: list[Reading], expected: FailureClass
) -> None:
    found = verdict(*readings, facts=DRIVER)
    assert found.failure_class is expected
    assert found.recommended_action in DISRUPTIVE


@pytest.mark.parametrize("code", [79, 48, 95])
def test_an_xid_alone_wants_a_second_source_after_a_change(code: int) -> None:
    found = verdict(xid(code), facts=DRIVER)
    assert (found.recommended_action, found.refusal) == (A.REVIEW, R.RECENT_CHANGE)
    assert found.failure_class not in {None, C.CHANGE_INDUCED}
    assert "second source" in found.reason


def test_what_was_no_proof_before_a_change_is_none_after_it() -> None:
    found = verdict(xid(74), facts=DRIVER)
    assert (found.failure_class, found.refusal) == (C.NVLINK_DOWN, R.NOT_CORROBORATED)


def test_a_version_is_no_change() -> None:
    found = verdict(reading("gpu_count_short"), facts={"gpu-1": {"driver_version": "595.91"}})
    assert found.recommended_action in DISRUPTIVE


# ------------------------------------------------------------------ boots


def test_an_event_after_the_boot_is_never_held() -> None:
    facts = {"gpu-1": {"boot_time": repr(NOW.timestamp() - 60)}}
    found = verdict(xid(79), reading("gpu_count_short"), facts=facts)
    assert found.recommended_action in DISRUPTIVE
    assert [f.signal for f in found.findings if f.held] == ["gpu_count_short"]


@pytest.mark.parametrize(("minutes", "is_held"), [(8, True), (12, False), (15, False)])
def test_the_grace_of_a_boot_is_ten_minutes(minutes: int, is_held: bool) -> None:
    facts = {"gpu-1": {"boot_time": repr(NOW.timestamp() - minutes * 60)}}
    found = verdict(reading("gpu_count_short"), facts=facts)
    assert (found.refusal is R.COOLDOWN) is is_held


def test_a_rack_that_boots_is_no_incident() -> None:
    nodes = [ready_node(f"n{i}", rack="r") for i in range(18)]
    facts = {n.name: {"boot_time": repr(NOW.timestamp() - 120)} for n in nodes}
    made = judged(
        *(reading("nvlink_down", 20, node=n.name) for n in nodes), nodes=nodes, facts=facts
    )
    assert made.incidents == ()
    assert {v.recommended_action for v in made.verdicts} == {A.NONE}


# ------------------------------------------------------------------ telemetry that is half gone


ALIKE = [ready_node(f"gpu-{i}", pool="p", sku="H") for i in range(1, 6)]


def test_a_suspect_whose_series_vanish_is_not_cleared() -> None:
    found = verdict(nodes=ALIKE, unseen={"ecc_dbe": ["gpu-1"]})
    assert (found.state, found.failure_class) == (NodeState.SUSPECT, C.TELEMETRY_LOST)
    assert (found.recommended_action, found.confidence) == (A.NONE, 0.0)
    assert "ecc_dbe" in found.reason


def test_what_is_still_seen_is_judged_when_an_optional_series_is_gone() -> None:
    found = verdict(xid(79), nodes=ALIKE, unseen={"ecc_dbe": ["gpu-1"]})
    assert (found.failure_class, found.recommended_action) == (C.GPU_OFF_BUS, A.REBOOT_NODE)
    assert found.unknown == ("ecc_dbe",)


@pytest.mark.parametrize(
    ("nodes", "without"),
    [
        pytest.param(ALIKE, ["gpu-1", "gpu-2"], id="two of five lack it: a rollout"),
        pytest.param(
            [ready_node(pool="q", sku="H"), *ALIKE[1:]], ["gpu-1"], id="no other of its pool"
        ),
        pytest.param(
            [ready_node(pool="p", sku="A"), *ALIKE[1:]], ["gpu-1"], id="no other of its SKU"
        ),
        pytest.param(ALIKE[:2], ["gpu-1"], id="one other is no example"),
    ],
)
def test_a_field_that_its_like_lack_too_is_no_loss(nodes: list, without: list[str]) -> None:
    found = verdict(nodes=nodes, unseen={"ecc_dbe": without})
    assert (found.state, found.failure_class) == (NodeState.HEALTHY, None)
    assert found.unknown == ("ecc_dbe",)


def test_a_gone_node_needs_more_than_silence() -> None:
    gone = {s.name: ["gpu-1"] for s in judged_signals()}
    silent = verdict(nodes=ALIKE, unseen=gone)
    assert (silent.failure_class, silent.recommended_action) == (C.TELEMETRY_LOST, A.NONE)
    both = verdict(reading("not_ready", 900), nodes=ALIKE, unseen=gone)
    assert (both.failure_class, both.recommended_action) == (C.NODE_NOT_READY, A.REBOOT_NODE)


def judged_signals() -> list:
    from tests.observations import POLICY

    return [s for s in POLICY.signals if not s.is_kubernetes]


# ------------------------------------------------------------------ consequences


def test_a_link_error_follows_the_gpu_that_fell_off_anywhere_on_the_node() -> None:
    found = verdict(xid(79), xid(74, gpu="GPU-b"))
    assert {f.failure_class for f in found.findings} == {C.GPU_OFF_BUS}
    assert found.confidence == pytest.approx(0.97)
    assert f"follows XID 79 on GPU {GPU}" in found.reason


def test_other_trouble_on_another_gpu_is_named_beside() -> None:
    found = verdict(xid(79), xid(119, gpu="GPU-b"))
    assert found.failure_class is C.GPU_OFF_BUS
    assert "Beside it: XID 119 on GPU GPU-b" in found.reason


def test_a_storm_of_45_after_its_cause_is_one_incident_of_the_causes_class() -> None:
    storm = [xid(45, signal=s) for s in ("xid_last", "xid_count", "xid_total")]
    found = verdict(xid(62), *storm)
    assert (found.failure_class, found.confidence) == (C.GPU_RECOVERY, pytest.approx(0.7))
    assert found.recommended_action is A.REVIEW
    assert {f.failure_class for f in found.findings} == {C.GPU_RECOVERY}
    followed = [f for f in found.findings if f.key == "45"]
    assert all("follows XID 62" in f.text and f.action is A.NONE for f in followed)


def test_45_without_a_cause_is_the_applications() -> None:
    found = verdict(xid(45), xid(79, gpu="GPU-b"))
    assert [f.failure_class for f in found.findings if f.key == "45"] == [C.APP_LEVEL]


def test_duplicates_are_one_finding() -> None:
    once = verdict(xid(95), reading("ecc_dbe"))
    assert verdict(*[xid(95)] * 1000, *[reading("ecc_dbe")] * 3) == once
