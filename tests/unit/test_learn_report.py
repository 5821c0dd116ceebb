"""The learning report: counts, exact intervals, calibration, offenders, proposals."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from importlib import resources

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from breakfix.learn import History, episodes_of, make_report
from breakfix.learn.statistics import calibration_of, share_of
from breakfix.model import Action, CaseEnd, FailureClass, NodeState
from breakfix.policy import merge_overlay, parse_policy
from tests.unit.learn_world import (
    GSP,
    LABELS,
    NOW,
    a_case,
    a_finding,
    a_review,
    a_round,
    advice,
    ago,
    ended,
    said,
)

DEFAULT = resources.files("breakfix").joinpath("policy.yaml").read_text(encoding="utf-8")
REAL, NOISE, KNOWN = LABELS


def a_policy(**overlay):
    return _parsed(yaml.safe_dump(overlay))


@cache
def _parsed(overlay):
    return parse_policy(DEFAULT, overlay)


def in_mode(mode, **learning):
    return a_policy(classes={"gsp": {"mode": mode}}, learning=learning)


def report_of(cases=(), reviews=(), labellings=(), steps=None, *, policy=None, days=30):
    history = History(tuple(cases), tuple(reviews), tuple(labellings), steps or {})
    return make_report(history, policy or a_policy(), since=ago(days=days), now=NOW)


def of_cases(right, wrong, *, policy, **fields):
    """A report over cases that people called real or noise."""
    cases = [a_case(n, **fields) for n in range(right + wrong)]
    words = [
        said(REAL if n < right else NOISE, case=f"c{n}", number=n) for n in range(right + wrong)
    ]
    return report_of(cases, labellings=words, policy=policy)


# --------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # R: binom.test(x, n)$conf.int
        pytest.param(0, 10, 0.0, 0.3084971, id="none of ten"),
        pytest.param(10, 10, 0.6915029, 1.0, id="all of ten"),
        pytest.param(5, 10, 0.1870861, 0.8129139, id="half of ten"),
        pytest.param(1, 1, 0.025, 1.0, id="one of one says little"),
    ],
)
def test_the_interval_is_the_exact_one(right, total, low, high):
    share = share_of(right, total, 0.95)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


def test_nothing_counted_has_no_share_and_every_value_is_possible():
    share = share_of(0, 0, 0.95)
    assert (share.share, share.low, share.high) == (None, 0.0, 1.0)


def test_more_right_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="3 of 2"):
        share_of(3, 2, 0.95)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_one_more_right_moves_it_up(counts):
    right, total = counts
    share = share_of(right, total, 0.95)
    assert 0 <= share.low <= share.share <= share.high <= 1
    if right < total:
        more = share_of(right + 1, total, 0.95)
        assert more.low > share.low
        assert more.high >= share.high


def test_calibration_is_the_mean_distance_of_stated_from_true():
    table = calibration_of([(0.95, True), (0.95, True), (0.95, False), (0.25, False)], 10)
    assert [(b.low, b.count) for b in table.bins] == [(0.2, 1), (0.9, 3)]
    assert table.ece == pytest.approx(3 / 4 * abs(0.95 - 2 / 3) + 1 / 4 * 0.25)


def test_certainty_is_in_the_last_bin_and_no_labels_mean_no_error():
    assert [b.low for b in calibration_of([(1.0, True)], 10).bins] == [0.9]
    assert calibration_of([], 10).ece is None


# --------------------------------------------------------------------------- classes


def test_precision_is_of_what_takes_nodes_out_and_suspicions_are_counted_apart():
    cases = [ended(CaseEnd.RETURNED, 1, repaired_at=NOW), ended(CaseEnd.RETURNED, 2)]
    reviews = [a_review(3, label=NOISE), a_review(4, label=REAL), advice(5, label=REAL)]
    (row,) = report_of(cases, reviews).classes
    assert (row.failure_class, row.cases, row.recommended, row.suspected) == (GSP, 2, 1, 2)
    assert (row.precision.right, row.precision.total) == (2, 3)
    assert (row.suspicions.right, row.suspicions.total) == (1, 2)


def test_a_known_issue_is_neither_right_nor_wrong():
    (row,) = report_of([a_case()], labellings=[said(KNOWN, case="c1")]).classes
    assert (row.known, row.precision.total, row.unlabelled) == (1, 0, 0)


def test_the_right_fault_under_the_wrong_class_is_not_right():
    word = replace(said(REAL, case="c1"), failure_class=FailureClass.FABRIC)
    report = report_of([a_case()], labellings=[word])
    assert (report.classes[0].precision.right, report.classes[0].precision.total) == (0, 1)
    assert (report.signals[0].precision.right, report.signals[0].precision.total) == (1, 1)


def test_the_last_word_on_a_case_counts():
    words = [said(NOISE, case="c1", number=1), said(REAL, case="c1", number=2)]
    assert report_of([a_case()], labellings=words).classes[0].precision.right == 1


def test_a_false_quarantine_is_a_case_that_was_noise():
    cases = [ended(CaseEnd.OVERRIDDEN, 1), ended(CaseEnd.RETURNED, 2, repaired_at=NOW)]
    (row,) = report_of(cases, [a_review(3, label=NOISE)]).classes
    assert (row.false_quarantines, row.overrides) == (1, 1)


@pytest.mark.parametrize(
    ("case", "is_override"),
    [
        pytest.param(ended(CaseEnd.OVERRIDDEN), True, id="a person uncordoned it"),
        pytest.param(
            ended(CaseEnd.ABORTED, detail={"ending": {"actor": "cli:ann"}}),
            *(True,),
            id="a person aborted it",
        ),
        pytest.param(
            ended(CaseEnd.ABORTED, detail={"ending": {"actor": "node_case"}}),
            *(False,),
            id="its reason was gone",
        ),
        pytest.param(
            ended(CaseEnd.OVERRIDDEN, detail={"ending": {"releases": True}}),
            *(False,),
            id="a driver upgrade took the node",
        ),
        pytest.param(ended(CaseEnd.RETURNED), False, id="it returned"),
    ],
)
def test_an_override_is_a_persons_hand(case, is_override):
    assert report_of([case]).classes[0].overrides == is_override


def by_hand(number, **fields):
    return a_case(number, action=Action.DRAIN_ONLY, failure_class=FailureClass.MANUAL, **fields)


def test_people_agree_with_advice_by_word_or_by_deed():
    reviews = [advice(1), advice(2, label=REAL), advice(3, label=NOISE), advice(4), advice(5)]
    drained = [by_hand(1, opened_at=ago(hours=30)), by_hand(4, opened_at=ago(days=3))]
    (row,) = report_of(drained, reviews).classes
    assert (row.recommended, row.advice_agreed, row.advice_refused) == (5, 2, 1)


def test_time_to_return_is_from_the_case_to_the_last_release():
    case = ended(CaseEnd.RETURNED, repaired_at=NOW)
    twice = [*a_round("c1", 1, released=ago(hours=46)), *a_round("c1", 2, released=ago(hours=42))]
    (row,) = report_of([case], steps={"c1": twice}).classes
    assert (row.returned, row.return_median_s, row.return_longest_s) == (1, 21600, 21600)


def test_an_item_for_people_that_became_a_case_is_counted_once():
    case = replace(a_case(1), node="n1", opened_at=ago(hours=30))
    assert len(episodes_of(History([case], [a_review(1, label=REAL)], []))) == 1
    assert len(episodes_of(History([replace(case, opened_at=ago(days=3))], [a_review(1)], []))) == 2


@pytest.mark.parametrize(
    "review",
    [
        pytest.param(a_review(failure_class="telemetry_lost"), id="lost telemetry"),
        pytest.param(a_review(failure_class=None), id="an excluded node"),
        pytest.param(
            replace(a_review(), detail={"nodes": ["n1"], "may_rest": True}), id="an incident"
        ),
    ],
)
def test_what_names_no_fault_is_no_verdict_to_learn_from(review):
    assert report_of(reviews=[review]).episodes == 0


def test_an_item_of_a_former_version_is_read_too():
    old = {"confidence": 0.5, "findings": [{"gpu": "1", "signal": "s", "text": "t"}]}
    assert report_of(reviews=[replace(a_review(), detail=old)]).episodes == 0
    with_class = replace(a_review(label=REAL), detail=old | {"failure_class": "gsp"})
    (row,) = report_of(reviews=[with_class]).signals
    assert (row.signal, row.weight, row.precision.right) == ("s", None, 1)


def test_only_what_began_in_the_window_counts():
    cases = [a_case(1, opened_at=ago(days=31)), a_case(2)]
    assert report_of(cases).episodes == 1
    assert report_of(cases, days=40).episodes == 2


# --------------------------------------------------------------------------- signals


def test_xids_have_a_row_each_and_other_keys_have_none():
    findings = [a_finding("xid_count", key="119"), a_finding("xid_count", key="48")]
    findings += [a_finding("gsp_errors", key="a"), a_finding("gsp_errors", key="b")]
    rows = report_of([a_case(detail={"findings": findings})]).signals
    assert [(r.signal, r.xid) for r in rows] == [
        ("gsp_errors", ""),
        ("xid_count", "119"),
        ("xid_count", "48"),
    ]
    policy = a_policy()
    assert rows[2].weight == policy.xids[48].weight


def test_a_signal_stands_alone_where_no_other_group_spoke():
    both = [a_finding("a", group="x"), a_finding("b", group="y")]
    context = [a_finding("a", group="x"), a_finding("b", group="y", mode="never")]
    cases = [
        ended(CaseEnd.RETURNED, 1, repaired_at=NOW, detail={"findings": both}),
        ended(CaseEnd.RETURNED, 2, repaired_at=NOW, detail={"findings": context}),
    ]
    row = report_of(cases).signals[0]
    assert (row.signal, row.precision.total, row.alone.total) == ("a", 2, 1)


# --------------------------------------------------------------------------- proposals


def changes(report):
    return [(str(p.kind), ".".join(p.path), p.before, p.after) for p in report.proposals]


@pytest.mark.parametrize(
    ("mode", "right", "wrong", "wanted"),
    [
        pytest.param("recommend", 20, 0, "approve", id="twenty of twenty earn approval"),
        pytest.param("recommend", 19, 0, None, id="nineteen are too few"),
        pytest.param("recommend", 19, 1, None, id="one wrong of twenty is not sure enough"),
        pytest.param("approve", 80, 0, "auto", id="eighty of eighty earn automation"),
        pytest.param("approve", 79, 1, None, id="one wrong of eighty is not sure enough"),
        pytest.param("approve", 109, 1, "auto", id="one wrong of a hundred and ten is"),
        pytest.param("auto", 200, 0, None, id="there is nothing above automation"),
        pytest.param("auto", 17, 3, "approve", id="automation that was wrong goes back"),
        pytest.param("auto", 3, 1, None, id="four labels demote nobody"),
        pytest.param("auto", 9, 1, None, id="nine of ten may stay"),
        pytest.param("approve", 3, 2, "recommend", id="what people approve goes back too"),
        pytest.param("recommend", 0, 50, None, id="there is nothing below advice"),
        pytest.param("off", 200, 0, None, id="what a site switched off stays off"),
    ],
)
def test_a_class_graduates_or_goes_back_by_its_labels(mode, right, wrong, wanted):
    report = of_cases(right, wrong, policy=in_mode(mode), detail={})
    found = [c for c in changes(report) if c[1] == "classes.gsp.mode"]
    assert [c[3] for c in found] == ([wanted] if wanted else [])
    assert all(c[2] == mode for c in found)


def test_a_class_that_only_people_repair_never_graduates():
    policy = a_policy(classes={"gsp": {"mode": "recommend", "ladder": ["review"]}})
    assert changes(of_cases(200, 0, policy=policy, detail={})) == []


def test_the_bars_are_the_policys():
    bars = {"approve": {"labels": 3, "precision": 0.2}, "auto": {"labels": 9, "precision": 0.9}}
    report = of_cases(3, 0, policy=in_mode("recommend", graduate=bars), detail={})
    assert [c[3] for c in changes(report)] == ["approve"]


def weighed(weight, right, wrong, *, mode="corroborate", other=False):
    """Proposals on a signal of that weight, after so many cases in which it spoke."""
    policy = a_policy(
        signals=[{"name": "nvlink_crc", "weight": weight, "mode": mode}],
        classes={"gsp": {"mode": "off"}},
    )
    findings = [a_finding("nvlink_crc", group="one")]
    if other:
        findings.append(a_finding("unheard_of", group="two"))
    return changes(of_cases(right, wrong, policy=policy, detail={"findings": findings}))


@pytest.mark.parametrize(
    ("found", "after"),
    [
        pytest.param(weighed(0.9, 30, 30), 0.5, id="half were real: too heavy"),
        pytest.param(weighed(0.9, 30, 30, other=True), 0.5, id="and that with another's help"),
        pytest.param(weighed(0.3, 60, 0), 0.99, id="all were real: too light, but never certain"),
        pytest.param(weighed(0.3, 60, 0, other=True), None, id="it may be the other's merit"),
        pytest.param(weighed(0.9, 0, 60), 0.05, id="none was real: it says next to nothing"),
        pytest.param(weighed(0.9, 54, 6), None, id="as it should be"),
        pytest.param(weighed(0.9, 2, 5), None, id="too few to say"),
        pytest.param(weighed(0.9, 30, 30, mode="never"), None, id="context has no weight"),
    ],
)
def test_a_weight_that_is_not_what_came_true_is_named(found, after):
    assert [c[3] for c in found if c[0] == "reweigh"] == ([after] if after else [])
    assert all(c[1] == "signals.nvlink_crc.weight" for c in found)


def test_the_weight_of_an_xid_is_proposed_where_it_stands_and_once():
    findings = [a_finding("xid_count", key="119"), a_finding("xid_last", key="119")]
    policy = a_policy(xids={119: {"weight": 0.9}}, classes={"gsp": {"mode": "off"}})
    report = of_cases(30, 30, policy=policy, detail={"findings": findings})
    assert changes(report) == [("reweigh", "xids.119.weight", 0.9, 0.5)]
    assert yaml.safe_load(report.overlay) == {"xids": {119: {"weight": 0.5}}}


def test_the_overlay_is_one_that_the_policy_takes_and_does_what_it_says():
    findings = [a_finding("nvlink_crc"), a_finding("xid_count", key="119")]
    overlay = {
        "classes": {"gsp": {"mode": "auto"}},
        "signals": [{"name": "nvlink_crc", "weight": 0.9, "mode": "corroborate"}],
        "xids": {119: {"weight": 0.9}},
    }
    report = of_cases(30, 30, policy=a_policy(**overlay), detail={"findings": findings})
    assert [c[0] for c in changes(report)] == ["demote", "reweigh", "reweigh"]
    then = a_policy(**merge_overlay(overlay, yaml.safe_load(report.overlay)))
    assert then.classes[GSP].mode == "approve"
    assert then.xids[119].weight == 0.5
    assert next(s for s in then.signals if s.name == "nvlink_crc").weight == 0.5


def test_without_proposals_there_is_no_overlay():
    report = report_of([a_case()])
    assert (report.proposals, report.overlay) == ((), "")


# --------------------------------------------------------------------------- repeat offenders


def test_an_offender_is_scored_by_cases_kinds_and_returns_that_failed():
    fabric = FailureClass.FABRIC
    cases = [
        replace(a_case(1), node="bad", failure_class=fabric),
        replace(a_case(2), node="bad"),
        replace(a_case(3), node="twice"),
        replace(a_case(4), node="twice"),
        replace(a_case(5), node="once"),
        replace(ended(CaseEnd.OVERRIDDEN, 6), node="once"),
        replace(a_case(7, opened_at=ago(days=31)), node="once"),
    ]
    steps = {"c1": [*a_round("c1", 1, released=ago(days=1)), *a_round("c1", 2)]}
    found = report_of(cases, steps=steps).offenders
    assert [(o.node, o.cases, o.failed_returns, o.score, o.is_lemon) for o in found] == [
        ("bad", 2, 1, 5.0, True),
        ("twice", 2, 0, 2.0, False),
    ]
    assert found[0].classes == (fabric, GSP)


def test_one_return_that_failed_makes_an_offender_and_policy_says_when_it_is_a_lemon():
    steps = {"c1": [*a_round("c1", 1, released=ago(days=1)), *a_round("c1", 2)]}
    (one,) = report_of([a_case(1)], steps=steps).offenders
    assert (one.score, one.is_lemon) == (3.0, False)
    policy = a_policy(learning={"lemon": {"score": 3}})
    assert report_of([a_case(1)], steps=steps, policy=policy).offenders[0].is_lemon


def test_the_window_of_lemons_is_their_own():
    cases = [replace(a_case(n, opened_at=ago(days=20)), node="n") for n in (1, 2)]
    assert len(report_of(cases, days=1).offenders) == 1


# --------------------------------------------------------------------------- properties

ENDS = st.sampled_from([None, *CaseEnd])


@st.composite
def histories(draw):
    count = draw(st.integers(1, 8))
    cases = []
    for n in range(count):
        end = draw(ENDS)
        fields = {
            "node": f"n{draw(st.integers(0, 2))}",
            "failure_class": draw(st.sampled_from([GSP, FailureClass.FABRIC])),
            "confidence": draw(st.floats(0, 1)),
            "repaired_at": draw(st.sampled_from([None, NOW])),
            "opened_at": NOW - timedelta(days=draw(st.integers(0, 40))),
        }
        if end is CaseEnd.ESCALATED:
            fields["state"] = NodeState.ESCALATED
        cases.append(a_case(n, **fields) if end is None else ended(end, n, **fields))
    reviews = [
        a_review(n, label=draw(st.sampled_from([None, *LABELS])))
        for n in range(100, 100 + draw(st.integers(0, 4)))
    ]
    words = [
        said(draw(st.sampled_from(LABELS)), case=f"c{draw(st.integers(0, count - 1))}", number=n)
        for n in range(draw(st.integers(0, 4)))
    ]
    return cases, reviews, words


@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_read_does_not_matter(history, random):
    cases, reviews, words = history
    before = report_of(cases, reviews, words)
    for part in (cases, reviews, words):
        random.shuffle(part)
    assert msgspec.to_builtins(report_of(cases, reviews, words), str_keys=True) == (
        msgspec.to_builtins(before, str_keys=True)
    )


@given(histories())
def test_every_verdict_is_counted_once_and_labels_add_up(history):
    report = report_of(*history)
    assert sum(report.labels.values()) == report.episodes
    known = sum(c.precision.total + c.suspicions.total for c in report.classes)
    rest = sum(c.known + c.unlabelled for c in report.classes)
    assert known + rest == report.episodes
    assert report.calibration.labelled == known
    assert sum(b.count for b in report.calibration.bins) == known


@given(st.integers(0, 60), st.integers(0, 30), st.sampled_from(["recommend", "approve", "auto"]))
def test_one_more_that_was_right_never_demotes_and_one_more_wrong_never_graduates(
    right, wrong, mode
):
    rank = ["demote", "", "graduate"]

    def way(right, wrong):
        made = changes(of_cases(right, wrong, policy=in_mode(mode), detail={}))
        return rank.index(made[0][0] if made else "")

    if right + wrong >= 5:
        assert way(right + 1, wrong) >= way(right, wrong)
    assert way(right, wrong + 1) <= way(right, wrong) or way(right, wrong) == 0
