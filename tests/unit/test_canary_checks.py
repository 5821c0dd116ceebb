"""Proceed, roll back or go on: each limit, each way of not knowing."""

from __future__ import annotations

import math

import pytest

from breakfix.cohorts import Advice, CheckOutcome, MetricValues
from breakfix.decide.canary import compare
from breakfix.decide.canary.checks import rate_checks
from breakfix.policy_canary import BusinessMetric
from tests.canaries import RULES, evidence, health, served, source, spread, timed

PROCEED, ROLL_BACK, CONTINUE = Advice.PROCEED, Advice.ROLL_BACK, Advice.CONTINUE


def advice(*sources, rules=RULES, **more):
    return compare(evidence(*sources, **more), rules)


def row(report, name):
    return next(c for c in report.checks if c.name == name)


RATES = [
    pytest.param((1000, 5), (1000, 5), PROCEED, id="alike"),
    pytest.param((1000, 0), (1000, 0), PROCEED, id="no errors on either side"),
    pytest.param((1000, 0), (1000, 40), PROCEED, id="a canary that is better"),
    pytest.param((1000, 50), (1000, 50), PROCEED, id="exactly at the limit of 5 %"),
    pytest.param((1000, 51), (1000, 51), ROLL_BACK, id="above 5 %, though stable is as bad"),
    pytest.param((100, 6), (0, 0), ROLL_BACK, id="above 5 % with nothing stable to compare"),
    pytest.param((99, 99), (1000, 0), CONTINUE, id="all fail, of fewer than 100 requests"),
    pytest.param((1000, 40), (1000, 10), ROLL_BACK, id="four times stable"),
    pytest.param((10000, 210), (10000, 100), ROLL_BACK, id="a little over twice of many"),
    pytest.param((10000, 190), (10000, 100), PROCEED, id="significantly worse, below twice"),
    pytest.param((1000, 13), (1000, 5), CONTINUE, id="over twice, and it may be chance"),
    pytest.param((1000, 3), (100000, 0), PROCEED, id="twice of zero is counted from the floor"),
    pytest.param((10000, 300), (100000, 0), ROLL_BACK, id="zero stable errors, many of the canary"),
    pytest.param((120, 2), (120, 0), CONTINUE, id="a zero baseline with few requests"),
    pytest.param((100000, 3000), (120, 1), CONTINUE, id="a tiny stable cohort proves little"),
    pytest.param((1000, 20), (99, 0), CONTINUE, id="stable has too few requests"),
    pytest.param((200, 0), (1000000, 5000), PROCEED, id="unequal sizes"),
    pytest.param((200, 8), (1000000, 5000), ROLL_BACK, id="unequal sizes, eight times as bad"),
]


@pytest.mark.parametrize(("canary", "stable", "wanted"), RATES)
def test_error_rates(canary, stable, wanted):
    report = advice(source(spread(*canary, 4), spread(*stable, 4)))
    assert report.advice is wanted, report.reason


def test_the_limits_are_the_policys():
    seen = source(spread(1000, 40, 4), spread(1000, 38, 4))
    strict = RULES.absolute.model_copy(update={"error_rate": 0.03})
    assert advice(seen).advice is PROCEED
    assert advice(seen, rules=RULES.model_copy(update={"absolute": strict})).advice is ROLL_BACK
    more = RULES.model_copy(update={"min_requests": 1001})
    assert advice(seen, rules=more).advice is CONTINUE


def test_one_sick_pod_is_not_the_change():
    one = (served(300, 24, "a"), served(300, 1, "b"), served(300, 1, "c"))
    report = advice(source(one, spread(10000, 20, 4)))
    assert report.advice is CONTINUE
    assert "alone" in row(report, "web error rate against stable").note


def test_successes_of_their_own_are_believed_over_errors():
    lost = tuple(served(500, 0, f"n{i}", successes=450.0) for i in range(2))
    report = advice(source(lost, spread(1000, 0, 2)))
    assert report.advice is ROLL_BACK
    assert row(report, "web success rate").canary == pytest.approx(0.9)


def test_errors_that_could_not_be_told_are_not_zero():
    report = advice(source([served(1000, None)], [served(1000, 0)]))
    assert report.advice is CONTINUE
    rates = {c.outcome for c in report.checks if "rate" in c.name}
    assert rates == {CheckOutcome.UNKNOWN}


TIMES = [
    pytest.param([(0.2, 1000)], [(0.2, 1000)], PROCEED, id="alike"),
    pytest.param([(0.2, 960), (2.0, 40)], [(0.2, 1000)], ROLL_BACK, id="p99 above a second"),
    pytest.param([(0.2, 960), (2.0, 40)], [(0.2, 960), (2.0, 40)], ROLL_BACK, id="both above"),
    pytest.param([(0.2, 800), (0.9, 200)], [(0.2, 1000)], ROLL_BACK, id="over 1.5 times stable"),
    pytest.param([(0.2, 98), (0.4, 2)], [(0.2, 1000)], CONTINUE, id="slower, maybe by chance"),
    pytest.param([(0.2, 50)], [(0.2, 1000)], CONTINUE, id="too few requests"),
    pytest.param([(0.04, 1000)], [(0.01, 1000)], PROCEED, id="below the floor nothing is slow"),
    pytest.param([(9.0, 1000)], [(0.2, 1000)], ROLL_BACK, id="all in the last, open bucket"),
    pytest.param([(0.2, 1000)], [(9.0, 1000)], CONTINUE, id="stable in the open bucket"),
]


@pytest.mark.parametrize(("canary", "stable", "wanted"), TIMES)
def test_latencies(canary, stable, wanted):
    report = advice(source([timed(*canary)], [timed(*stable)]))
    assert report.advice is wanted, report.reason


def test_a_p99_above_the_largest_bucket_is_unknown_where_that_is_below_the_limit():
    coarse = ((0.1, 500.0), (0.5, 900.0), (math.inf, 1000.0))
    seen = source([served(1000, buckets=coarse)], [served(1000, buckets=coarse)])
    report = advice(seen)
    assert report.advice is CONTINUE
    assert "largest bucket" in row(report, "web p99").note


def coarse(fast):
    buckets = ((0.1, float(fast)), (1.0, 10_000.0), (math.inf, 10_000.0))
    return [served(10_000, buckets=buckets)]


@pytest.mark.parametrize(
    ("fast", "says"),
    [
        pytest.param(5000, "50.0% against 1.5%", id="half of the requests"),
        pytest.param(9700, "too coarse", id="twice as many, which may be next to nothing"),
        pytest.param(9846, "may be chance", id="a few more, as luck has it"),
    ],
)
def test_slower_within_one_bucket_is_said_and_never_rolled_back(fast, says):
    steep = RULES.relative.model_copy(update={"p99": 1.0001})
    rules = RULES.model_copy(update={"relative": steep})
    report = advice(source(coarse(fast), coarse(9850)), rules=rules)
    assert report.advice is CONTINUE
    assert says in row(report, "web p99 against stable").note


def test_one_slow_node_is_not_the_change():
    ok = [timed((0.2, 1000), unit=f"n{i}") for i in range(2)]
    slow = timed((0.2, 800), (0.9, 200), unit="n9")
    assert advice(source([*ok, slow], [timed((0.2, 9000))])).advice is CONTINUE


def test_histograms_with_other_bounds_meet_where_they_can():
    fine = served(1000, buckets=((0.25, 900.0), (0.3, 950.0), (1.0, 1000.0), (math.inf, 1000.0)))
    coarse = served(1000, buckets=((0.25, 900.0), (1.0, 1000.0), (math.inf, 1000.0)))
    report = advice(source([fine], [coarse]))
    assert report.advice is PROCEED


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        pytest.param({"canary": ()}, "'the new'", id="no canary"),
        pytest.param({"stable": ()}, "'the old'", id="nothing stable"),
        pytest.param({"canary": (), "stable": ()}, "'the new' and 'the old'", id="neither"),
    ],
)
def test_a_missing_cohort_goes_on_and_is_named(missing, named):
    report = advice(source(spread(1000, 0, 2), spread(1000, 0, 2)), **missing)
    assert report.advice is CONTINUE
    assert named in report.reason


def test_nothing_seen_at_all_never_proceeds():
    assert advice().advice is CONTINUE
    assert advice(source([], [])).advice is CONTINUE


def test_a_source_that_only_stable_has_is_unknown_for_the_canary():
    report = advice(source([], spread(1000, 0, 3)))
    assert report.advice is CONTINUE
    assert "canary has 0 requests" in report.reason


def test_a_query_that_failed_is_said():
    report = advice(source([], [], trouble="Prometheus did not answer in 30 s"))
    assert report.advice is CONTINUE
    assert "did not answer" in report.reason


def test_past_the_deadline_a_person_decides():
    seen = evidence(canary=())
    assert not compare(seen, RULES, waited_s=RULES.deadline_s - 1).is_overdue
    late = compare(seen, RULES, waited_s=RULES.deadline_s)
    assert (late.advice, late.is_overdue) == (CONTINUE, True)
    assert "a person has to decide" in late.reason


HEALTH = [
    pytest.param((5, 3), (50, 0), ROLL_BACK, id="three of five have findings, none of the rest"),
    pytest.param((3, 0), (50, 1), PROCEED, id="no findings on three nodes"),
    pytest.param((2, 0), (50, 0), CONTINUE, id="two nodes are too few to clear anything"),
    pytest.param((5, 1), (50, 0), CONTINUE, id="one sick node is one sick node"),
    pytest.param((50, 6), (50, 5), PROCEED, id="about as many as elsewhere"),
    pytest.param((5, 2), (5, 0), CONTINUE, id="too few nodes to be sure"),
    pytest.param((4, 4), (6, 0), ROLL_BACK, id="all of a small cohort, none of the rest"),
    pytest.param((4, 4), (6, 4), PROCEED, id="all, and stable is nearly as bad"),
    pytest.param((2, 2), (6, 0), CONTINUE, id="two nodes are no cohort"),
    pytest.param((0, 0), (50, 0), CONTINUE, id="no node of the canary could be judged"),
]


@pytest.mark.parametrize(("canary", "stable", "wanted"), HEALTH)
def test_nodes_with_findings_need_no_request(canary, stable, wanted):
    report = advice(health=(health(*canary, nodes=max(1, canary[0])), health(*stable)))
    assert report.advice is wanted, report.reason


def test_a_canary_that_mostly_cannot_be_judged_is_unknown():
    report = advice(health=(health(5, 0, nodes=10), health(50, 0)))
    assert report.advice is CONTINUE
    assert "5 of 10 nodes could be judged" in report.reason


def values(*numbers):
    return {f"n{i}": float(n) for i, n in enumerate(numbers)}


TOKENS = BusinessMetric(name="tokens", query="x{$match}", worse="lower", ratio=1.25, floor=1)
QUEUE = BusinessMetric(name="queue", query="x{$match}", limit=10, ratio=2, floor=0.5)
GOOD, SLOW = values(*[100] * 12), values(*[60 + i for i in range(12)])
METRICS = [
    pytest.param(TOKENS, GOOD, GOOD, PROCEED, id="alike"),
    pytest.param(TOKENS, SLOW, GOOD, ROLL_BACK, id="lower is worse, on many nodes"),
    pytest.param(TOKENS, GOOD, SLOW, PROCEED, id="higher is better"),
    pytest.param(TOKENS, values(60, 61), values(100, 101, 102), CONTINUE, id="lower on two nodes"),
    pytest.param(
        TOKENS, values(*[0] * 12), values(*[0.5] * 12), PROCEED, id="a baseline of nothing"
    ),
    pytest.param(QUEUE, values(11), values(1, 1, 1), ROLL_BACK, id="the absolute limit by itself"),
    pytest.param(QUEUE, values(*[0.9] * 12), values(*[0] * 12), PROCEED, id="twice of the floor"),
    pytest.param(QUEUE, {}, GOOD, CONTINUE, id="the canary does not report it"),
    pytest.param(QUEUE, values(1), {}, CONTINUE, id="stable does not report it"),
]


@pytest.mark.parametrize(("rule", "canary", "stable", "wanted"), METRICS)
def test_business_metrics(rule, canary, stable, wanted):
    rules = RULES.model_copy(update={"metrics": (rule,)})
    seen = evidence(metrics=(MetricValues(rule.name, canary, stable),))
    report = compare(seen, rules)
    assert report.advice is wanted, report.reason


def test_alpha_is_shared_by_all_looks_and_tests():
    one = advice(source(spread(1000, 0, 2), spread(1000, 0, 2)))
    assert one.alpha == pytest.approx(RULES.alpha / RULES.looks)
    two = advice(source([timed((0.2, 1000))], [timed((0.2, 1000))]))
    assert two.alpha == pytest.approx(RULES.alpha / RULES.looks / 2)


def test_false_alarms_of_all_looks_stay_below_alpha():
    """Exactly, over every count of errors: alike cohorts, as many looks as are planned."""
    from scipy.stats import binom

    rate, n, rules = 0.03, 400, RULES.model_copy(update={"looks": 5, "alpha": 0.05})
    loose = rules.relative.model_copy(update={"error_rate": 1.000001})
    rules = rules.model_copy(update={"relative": loose})
    alpha = rules.alpha / rules.looks
    chance = 0.0
    for bad in range(60):
        for other in range(60):
            seen = source(spread(n, bad, 2), spread(n, other, 2))
            found = list(rate_checks(seen, rules, alpha))[1]
            if found.outcome is CheckOutcome.FAILED:
                chance += binom.pmf(bad, n, rate) * binom.pmf(other, n, rate)
    assert 0 < chance * rules.looks <= rules.alpha


def test_the_report_says_who_was_compared_over_what():
    seen = source(spread(1000, 0, 3), spread(2000, 0, 2))
    report = advice(seen)
    assert (report.canary, report.canary_size, report.stable_size) == ("the new", 3, 2)
    assert report.window_s == 600.0
    first = report.checks[0]
    assert (first.requests, first.stable_requests, first.limit) == (1000, 2000, 0.05)


def test_a_roll_back_names_the_check_its_value_and_its_limit():
    report = advice(source(spread(1000, 40, 4), spread(1000, 10, 4)))
    assert report.reason.startswith("web error rate against stable is 0.04, limit 0.02")
