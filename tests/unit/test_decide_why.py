"""Every verdict explains itself."""

from __future__ import annotations

import json

import pytest

from breakfix.decide import explain, judgement_json, why_json
from breakfix.decide.why import Why
from breakfix.model import FailureClass, OpenFinding, Reading, RefusalReason
from breakfix.policy import parse_policy
from breakfix.wiring import default_policy_text
from tests.observations import (
    NOW,
    POLICY,
    judged,
    observation,
    reading,
    ready_node,
    verdict,
    xid,
)

C, R = FailureClass, RefusalReason


def why(*readings: Reading, **how: object) -> Why:
    return explain(verdict(*readings, **how), POLICY)


def test_the_sentence_says_what_where_how_sure_and_what_to_do() -> None:
    assert why(xid(79), reading("gpu_count_short")).sentence == (
        "gpu-1 is suspect: gpu_off_bus on GPU GPU-aaaa with confidence 1.00 of 0.90 wanted, by"
        " 2 independent sources; recommended: reboot_node."
    )


def test_each_source_is_a_row_and_the_confidence_grows_down_the_table() -> None:
    made = why(xid(74), xid(74, signal="xid_count"), reading("nvlink_errors", 2))
    assert [(r.group, r.weight, r.confidence) for r in made.rows] == [
        ("nvlink", 0.7, pytest.approx(0.7)),
        ("xid", 0.7, pytest.approx(0.91)),
    ]
    assert made.rows[1].signals == ("xid_count", "xid_last")
    assert (made.confidence, made.wanted, made.is_proven) == (pytest.approx(0.91), 0.9, True)
    assert made.missing == ()


def test_what_would_make_it_sure_is_named() -> None:
    made = why(xid(74))
    (missing,) = made.missing
    assert missing.startswith("one finding of another source, any of: ")
    assert "nvlink_errors" in missing
    assert "gpu_hot" not in missing
    assert not made.is_proven


@pytest.mark.parametrize(
    "name", ["aks_nvlink_inactive", "fabric_manager", "nvlink_errors", "health_nvlink"]
)
def test_what_is_named_does_make_it_sure(name: str) -> None:
    assert name in why(xid(74)).missing[0]
    value = {"fabric_manager": 4.0, "health_nvlink": 20.0}.get(name, 2.0)
    assert why(xid(74), reading(name, value)).is_proven


def test_an_xid_is_named_where_metrics_speak_first() -> None:
    assert "an XID of row_remap_pending" in why(reading("row_remap_pending")).missing[0]


@pytest.mark.parametrize(
    ("readings", "signal", "says"),
    [
        pytest.param([xid(79), reading("gpu_hot", 95)], "gpu_hot", "never", id="never a reason"),
        pytest.param(
            [xid(74), xid(74, signal="xid_count")], "xid_last", "same", id="the same source"
        ),
        pytest.param(
            [xid(48), xid(119, gpu="GPU-b")], "xid_last", "another trouble", id="another trouble"
        ),
        pytest.param([xid(94), xid(63, gpu="GPU-b")], "xid_last", "another GPU", id="another GPU"),
    ],
)
def test_what_adds_nothing_says_why(readings: list[Reading], signal: str, says: str) -> None:
    found = [u for u in why(*readings).uncounted if u.signal == signal]
    assert any(says in u.why for u in found)


def test_what_the_boot_holds_back_says_so() -> None:
    facts = {"gpu-1": {"boot_time": repr(NOW.timestamp() - 60)}}
    made = why(reading("gpu_count_short"), facts=facts)
    assert made.rows == ()
    assert made.uncounted[0].why == "the node came up less than 600 s ago"
    assert "grace" in made.missing[0]


def test_a_change_says_what_it_looks_like_and_no_second_source_would_do() -> None:
    made = why(xid(119), facts={"gpu-1": {"changed_driver_version": "595"}})
    assert "change_induced, which looks like gsp" in made.sentence
    assert made.failure_class is C.GSP
    assert len(made.missing) == 1
    assert "change" in made.missing[0]


def test_a_class_that_is_off_says_so() -> None:
    off = parse_policy(default_policy_text(), "classes: {gpu_off_bus: {mode: 'off'}}")
    made = explain(verdict(xid(79), policy=off), off)
    assert made.is_proven
    assert "its mode is off" in made.missing[0]


def test_lost_telemetry_names_what_is_missing() -> None:
    nodes = [ready_node(), ready_node("gpu-2")]
    made = why(nodes=nodes, unseen={"gpu_count_short": ["gpu-1"]})
    assert made.missing == ("telemetry of the node: gpu_count_short",)
    assert made.unknown == ("gpu_count_short",)


def test_what_spoke_and_is_not_reported_is_named_with_its_gpu_and_since_when() -> None:
    lost = {"gpu-1": (OpenFinding("ecc_dbe", "GPU-aaaa", NOW),)}
    said = "ecc_dbe of GPU GPU-aaaa, which spoke before 2026-03-01 12:00 UTC"
    assert why(unreported=lost).missing == (f"a report of what spoke: {said}",)
    beside = explain(verdict(xid(63), unreported=lost), POLICY)
    assert beside.missing[0] == f"a report of what spoke: {said}"
    assert said in verdict(unreported=lost).reason


def test_a_node_of_an_incident_is_explained_by_its_own_findings() -> None:
    nodes = [ready_node(f"n{i}", rack="r") for i in range(8)]
    made = judged(*(xid(79, node=f"n{i}") for i in range(4)), nodes=nodes)
    told = explain(made.verdict("n0"), POLICY)
    assert told.failure_class is C.GPU_OFF_BUS
    assert "incident" in told.missing[0]


def test_a_quiet_node_has_little_to_explain() -> None:
    made = why()
    assert made.sentence == "gpu-1 is healthy: nothing that may count; recommended: none."
    assert (made.rows, made.missing, made.uncounted, made.wanted) == ((), (), (), None)


def test_a_signal_compared_with_peers_says_with_which() -> None:
    text = "signals: [{name: pcie_replay, peers: {by: [sku, pool]}}]"
    policy = parse_policy(default_policy_text(), text)
    made = explain(verdict(reading("pcie_replay", 90), policy=policy), policy)
    assert made.rows[0].peers == "median of its sku and pool"


def test_the_json_report_carries_it() -> None:
    seen = observation([xid(79)], [ready_node(), ready_node("gpu-2")])
    from breakfix.decide import judge

    report = judgement_json(seen, judge(seen, POLICY, {}, NOW), POLICY)
    told = {n["node"]: n.get("why") for n in report["nodes"]}
    assert told["gpu-1"]["sentence"].startswith("gpu-1 is suspect")
    assert told["gpu-2"] is None
    assert json.dumps(report)


@pytest.mark.parametrize(
    "label",
    ["[bold red]x[/]", "{value} {0!r}", "a\nb\tc", "x" * 5000, "\N{RIGHT-TO-LEFT OVERRIDE}y"],
)
def test_hostile_labels_stay_data_in_every_sentence(label: str) -> None:
    found = verdict(Reading("xid_last", "gpu-1", label, 1.0, label))
    made = why_json(explain(found, POLICY))
    text = found.reason + json.dumps(made["rows"][0]["text"]) + made["sentence"]
    assert "\n" not in text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    assert len(text) < 3000
    if len(label) < 100:
        assert (
            label.replace("\n", "?").replace("\t", "?").replace("\N{RIGHT-TO-LEFT OVERRIDE}", "?")
            in found.reason
        )


def test_judge_prints_it_with_labels_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    from breakfix.cli.judge import print_why

    print_why(why_json(why(xid(74, gpu="[red]x[/red]"), reading("gpu_hot", 95))))
    out = capsys.readouterr().out
    assert "nvlink_down on GPU [red]x[/red] with confidence 0.70 of 0.90 wanted" in out
    assert "missing: one finding of another source, any of:" in out
    assert "seen, but adding nothing" in out
