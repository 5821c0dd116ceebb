"""What sweeps leave in every ledger, and what the ledger remembers of a node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breakfix.model import (
    Action,
    CaseEnd,
    FailureClass,
    Finding,
    Incident,
    Judgement,
    NodeState,
    OpenFinding,
    Plan,
    Refusal,
    RefusalReason,
    SignalKind,
    SignalMode,
    Verdict,
)
from tests.contract.ledger_builders import NOW, admit, an_intent, events, later, to_returning


def a_finding(node, value=79.0):
    return Finding(
        signal="xid",
        node=node,
        gpu="3",
        value=value,
        threshold=0,
        window_s=300,
        age_s=value,
        weight=0.9,
        group="driver",
        mode=SignalMode.ALONE,
        kind=SignalKind.EVENT,
        failure_class=FailureClass.GPU_OFF_BUS,
        action=Action.REBOOT_NODE,
        source="NVIDIA Xid catalogue",
        text="XID 79",
    )


def a_verdict(node, state=NodeState.HEALTHY, *, action=Action.NONE, unknown=(), **fields):
    is_bad = state is not NodeState.HEALTHY
    return Verdict(
        node=node,
        state=state,
        failure_class=fields.pop("failure_class", FailureClass.GPU_OFF_BUS if is_bad else None),
        confidence=0.7,
        findings=(a_finding(node),) if is_bad else (),
        unknown=unknown,
        recommended_action=action,
        reason=fields.pop("reason", "because"),
    )


def sweep(ledger, *verdicts, refusals=(), incidents=(), now=NOW):
    judgement = Judgement(now, "1", "policy-1", tuple(verdicts), tuple(incidents))
    plan = Plan(now, "policy-1", (), tuple(refusals), tuple(incidents))
    return ledger.record_sweep(judgement, plan, actor="fleet_sweep", now=now)


def a_refusal(node, reason=RefusalReason.SCOPE_FULL, text="rack is full"):
    return Refusal(node, reason, text, FailureClass.GPU_OFF_BUS, Action.REBOOT_NODE)


def bad(node, **fields):
    return a_verdict(node, NodeState.SUSPECT, action=Action.REVIEW, **fields)


def test_every_sweep_has_an_id_of_its_own(ledger):
    assert sweep(ledger, a_verdict("n1")) != sweep(ledger, a_verdict("n1"), now=later(15))


def test_a_sweep_that_changes_nothing_adds_nothing_to_the_audit(ledger):
    parts = {"refusals": [a_refusal("n2")], "incidents": [an_incident("n3", "n4")]}
    for s in range(5):
        sweep(ledger, a_verdict("n1"), bad("n2"), **parts, now=later(15 * s))
    assert events(ledger) == ["sweep.changed"]


def an_incident(*nodes):
    return Incident("rack=r9", nodes, (FailureClass.NVLINK_DOWN,), "half of rack r9")


def test_states_are_those_of_the_last_sweep_since_their_last_change(ledger):
    sweep(ledger, a_verdict("n1"), a_verdict("n2"))
    sweep(ledger, a_verdict("n1"), bad("n2"), now=later(15))
    sweep(ledger, a_verdict("n1"), bad("n2"), now=later(30))
    records = ledger.node_records(now=later(31))
    assert (records["n1"].state, records["n1"].since) == (NodeState.HEALTHY, NOW)
    assert (records["n2"].state, records["n2"].since) == (NodeState.SUSPECT, later(15))


def test_what_a_sweep_leaves_open_is_there_for_the_next_one(ledger):
    speaks, missed = OpenFinding("ecc_dbe", "1"), OpenFinding("xid_last", "2", later(15))
    both = replace(bad("n2"), open_findings=(speaks, missed))
    sweep(ledger, a_verdict("n1"), replace(bad("n2"), open_findings=(speaks,)))
    sweep(ledger, a_verdict("n1"), both, now=later(15))
    records = ledger.node_records(now=later(16))
    assert records["n2"].open_findings == (speaks, missed)
    assert records["n1"].open_findings == ()
    sweep(ledger, a_verdict("n1"), a_verdict("n2"), now=later(30))
    assert ledger.node_records(now=later(31))["n2"].open_findings == ()


def test_what_is_open_is_kept_while_a_case_has_the_node(ledger):
    missed = OpenFinding("xid_last", "2\x00", NOW)
    sweep(ledger, bad("n1"))
    admit(ledger, "n1", now=later(5))
    in_hand = replace(a_verdict("n1", NodeState.QUARANTINED), open_findings=(missed,))
    sweep(ledger, in_hand, now=later(6))
    assert ledger.node_records(now=later(7))["n1"].open_findings == (
        OpenFinding("xid_last", "2\ufffd", NOW),
    )


def test_an_open_case_says_the_state_of_its_node(ledger):
    sweep(ledger, a_verdict("n1"))
    case = admit(ledger, "n1", now=later(5))
    sweep(ledger, bad("n1"), now=later(6))
    record = ledger.node_records(now=later(7))["n1"]
    assert (record.state, record.since, record.last_case) == (
        NodeState.QUARANTINED,
        later(5),
        case.id,
    )
    ledger.take_over(case.id, 1, actor="a", reason="r", now=later(8))
    ledger.move(case.id, 2, NodeState.REPAIRING, actor="a", reason="r", now=later(9))
    record = ledger.node_records(now=later(10))["n1"]
    assert (record.state, record.since) == (NodeState.REPAIRING, later(9))


def test_a_node_known_only_by_its_case_has_a_record(ledger):
    admit(ledger, "n1")
    assert ledger.node_records(now=NOW)["n1"].state is NodeState.QUARANTINED


def test_an_escalated_node_stays_so_whatever_sweeps_say_until_it_is_resolved(ledger):
    case = admit(ledger, "n1")
    ledger.end_case(case.id, 1, CaseEnd.ESCALATED, actor="a", reason="hw", now=later(1))
    sweep(ledger, a_verdict("n1"), now=later(15))
    assert ledger.node_records(now=later(16))["n1"].state is NodeState.ESCALATED
    ledger.end_case(case.id, 1, CaseEnd.RETURNED, actor="ann", reason="new GPU", now=later(20))
    record = ledger.node_records(now=later(21))["n1"]
    assert (record.state, record.since) == (NodeState.HEALTHY, later(20))


def test_a_returned_node_remembers_its_repair_and_its_end(ledger):
    case = to_returning(ledger, admit(ledger, "n1"), repaired_at=later(10.5))
    ledger.end_case(case.id, 1, CaseEnd.RETURNED, actor="a", reason="r", now=later(99))
    record = ledger.node_records(now=later(100))["n1"]
    assert (record.state, record.since) == (NodeState.HEALTHY, later(99))
    assert (record.evidence_floor, record.last_ended_at) == (later(10.5), later(99))


def test_a_later_case_without_a_repair_keeps_the_floor_of_the_one_before(ledger):
    case = to_returning(ledger, admit(ledger, "n1"), repaired_at=later(10.5))
    ledger.end_case(case.id, 1, CaseEnd.RETURNED, actor="a", reason="r", now=later(99))
    admit(ledger, "n1", now=later(200))
    assert ledger.node_records(now=later(201))["n1"].evidence_floor == later(10.5)


@pytest.mark.parametrize(
    ("end", "overridden_at"),
    [
        pytest.param(CaseEnd.OVERRIDDEN, later(20), id="a person uncordoned the node"),
        pytest.param(CaseEnd.ABORTED, None, id="a person aborted the case"),
    ],
)
def test_what_a_person_ended_leaves_a_floor_for_evidence(ledger, end, overridden_at):
    case = admit(ledger, "n1")
    ledger.end_case(case.id, 1, end, actor="ann", reason="mine", now=later(20))
    admit(ledger, "n2")
    again = admit(ledger, "n1", now=later(30))
    ledger.end_case(again.id, 1, CaseEnd.ESCALATED, actor="a", reason="hw", now=later(50))
    records = ledger.node_records(now=later(51))
    found = {n: (r.evidence_floor, r.overridden_at) for n, r in records.items()}
    assert found == {"n1": (later(20), overridden_at), "n2": (None, None)}


def test_the_floor_for_evidence_is_the_newest_of_repair_and_override(ledger):
    case = to_returning(ledger, admit(ledger, "n1"), repaired_at=later(10.5))
    ledger.end_case(case.id, 1, CaseEnd.OVERRIDDEN, actor="ann", reason="mine", now=later(20))
    assert ledger.node_records(now=later(21))["n1"].evidence_floor == later(20)
    again = to_returning(ledger, admit(ledger, "n1", now=later(30)), repaired_at=later(40))
    ledger.end_case(again.id, 1, CaseEnd.RETURNED, actor="a", reason="r", now=later(50))
    record = ledger.node_records(now=later(51))["n1"]
    assert (record.evidence_floor, record.overridden_at) == (later(40), later(20))


def test_attempts_count_repairs_in_the_window_once_a_case_and_attempt(ledger):
    case = admit(ledger, "n1")
    for name in ("drain", "repair.pod", "repair.wait"):
        ledger.begin_step(case.id, 1, name, detail={}, now=later(1))
    assert ledger.node_records(now=later(2))["n1"].attempts == 1
    to_returning(ledger, case)
    again = replace(an_intent("n1"), attempt=2)
    ledger.admit(again, [], requester="s", now=later(20))
    ledger.begin_step(case.id, 2, "repair.pod.2", detail={}, now=later(21))
    assert ledger.node_records(now=later(22))["n1"].attempts == 2
    week = 604800
    assert ledger.node_records(now=later(week + 5))["n1"].attempts == 1
    assert ledger.node_records(now=later(week + 50))["n1"].attempts == 0


# --------------------------------------------------------------------------- reviews


def test_a_review_opens_once_is_renewed_and_closes_when_it_is_seen_no_more(ledger):
    sweep(ledger, bad("n1"))
    sweep(ledger, bad("n1", reason="still"), now=later(15))
    (item,) = ledger.reviews()
    assert (item.node, item.at, item.last_seen) == ("n1", NOW, later(15))
    assert item.reason == "still"
    assert (item.topic, item.times_seen) == ("gpu_off_bus", 2)
    sweep(ledger, a_verdict("n1"), now=later(30))
    assert ledger.reviews() == ()
    (closed,) = ledger.reviews(open_only=False)
    assert closed.closed_at == later(30)
    sweep(ledger, bad("n1"), now=later(45))
    (again,) = ledger.reviews()
    assert (again.id != item.id, again.at) == (True, later(45))


def test_a_review_carries_all_that_a_person_needs_to_answer_it(ledger):
    refusal = a_refusal("n1", RefusalReason.MODE_RECOMMEND)
    sweep(ledger, bad("n1", unknown=("nvlink",)), refusals=[refusal])
    (item,) = ledger.reviews()
    assert item.detail | {"findings": None} == {
        "state": "suspect",
        "failure_class": "gpu_off_bus",
        "confidence": 0.7,
        "findings": None,
        "unknown": ["nvlink"],
        "recommended_action": "review",
        "refusal": "mode_recommend",
        "action": "reboot_node",
        "verdict": "because",
        "policy": {"version": "1", "hash": "policy-1"},
        "marks": ["xid|3|"],
        "may_rest": False,
    }
    (finding,) = item.detail["findings"]
    wanted = {"value": 79, "threshold": 0, "window_s": 300, "age_s": 79, "weight": 0.9}
    wanted |= {"group": "driver", "source": "NVIDIA Xid catalogue", "text": "XID 79"}
    assert finding.items() >= wanted.items()


def test_lost_telemetry_closes_no_review(ledger):
    sweep(ledger, bad("n1"))
    sweep(ledger, a_verdict("n1", unknown=("xid",)), now=later(15))
    assert [i.node for i in ledger.reviews()] == ["n1"]


def test_the_review_of_a_node_that_left_the_fleet_closes(ledger):
    sweep(ledger, bad("n1"), a_verdict("n2"))
    sweep(ledger, a_verdict("n2"), now=later(15))
    assert ledger.reviews() == ()


def test_two_classes_on_one_node_are_two_items(ledger):
    refusal = replace(
        a_refusal("n1", RefusalReason.MODE_RECOMMEND), failure_class=FailureClass.THERMAL
    )
    sweep(ledger, bad("n1"), refusals=[refusal])
    assert [i.node for i in ledger.reviews()] == ["n1", "n1"]


@pytest.mark.parametrize(
    ("reason", "is_for_people"),
    [
        pytest.param(RefusalReason.MODE_RECOMMEND, True, id="a class that may not act yet"),
        pytest.param(RefusalReason.NOT_CORROBORATED, True, id="one weak signal"),
        pytest.param(RefusalReason.ATTEMPTS, True, id="repaired too often"),
        pytest.param(RefusalReason.SCOPE_FULL, False, id="a full rack empties by itself"),
        pytest.param(RefusalReason.COOLDOWN, False, id="a cooldown passes"),
    ],
)
def test_refusals_that_do_not_pass_by_themselves_are_for_people(ledger, reason, is_for_people):
    sweep(ledger, a_verdict("n1", NodeState.SUSPECT), refusals=[a_refusal("n1", reason)])
    assert bool(ledger.reviews()) is is_for_people


def test_an_incident_is_one_item_for_its_whole_scope(ledger):
    sweep(ledger, incidents=[an_incident("n1", "n2", "n3")])
    (item,) = ledger.reviews()
    assert (item.node, item.reason) == ("rack=r9", "half of rack r9")
    assert item.detail == {
        "cause": "",
        "nodes": ["n1", "n2", "n3"],
        "failure_classes": ["nvlink_down"],
        "seen": {},
        "policy": {"version": "1", "hash": "policy-1"},
        "may_rest": True,
        "marks": ["class:nvlink_down", "n1", "n2", "n3"],
    }
    sweep(ledger, now=later(15))
    assert ledger.reviews() == ()


def test_the_nodes_of_an_incident_are_no_items_of_their_own(ledger):
    nodes = ("n1", "n2", "n3")
    held = [replace(bad(n), refusal=RefusalReason.COMMON_CAUSE) for n in nodes]
    for s in range(2):
        sweep(ledger, *held, bad("n4"), incidents=[an_incident(*nodes)], now=later(15 * s))
    assert sorted(i.node for i in ledger.reviews()) == ["n4", "rack=r9"]
    (item,) = [i for i in ledger.reviews() if i.node == "rack=r9"]
    assert item.detail["seen"] == {n: ["XID 79"] for n in nodes}


# --------------------------------------------------------------------------- refusals


def test_a_refusal_is_audited_when_it_comes_and_when_it_goes(ledger):
    sweep(ledger, refusals=[a_refusal("n1")])
    for s in range(1, 4):
        sweep(ledger, refusals=[a_refusal("n1", text=f"value {s}")], now=later(15 * s))
    assert events(ledger) == ["sweep.changed"]
    sweep(ledger, now=later(60))
    sweep(ledger, refusals=[a_refusal("n1")], now=later(75))
    assert events(ledger) == ["sweep.changed"] * 3


def test_names_from_outside_cannot_break_a_sweep(ledger):
    node = "n\0"
    for s in range(2):
        sweep(
            ledger,
            bad(node, reason="\0\ud800"),
            refusals=[a_refusal(node)],
            incidents=[replace(an_incident(node), scope="rack=\0")],
            now=later(s),
        )
    assert ledger.verify_audit()[1] == ""
