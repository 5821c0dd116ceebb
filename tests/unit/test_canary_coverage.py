"""What nobody tells of is no pass: pods that are gone, and numbers that are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breakfix.cohorts import Advice, CheckOutcome, Cohort, Heard, MetricValues
from breakfix.decide.canary import compare
from breakfix.policy_canary import BusinessMetric
from tests.canaries import RULES, evidence, served, source, timed

PROCEED, ROLL_BACK, CONTINUE = Advice.PROCEED, Advice.ROLL_BACK, Advice.CONTINUE


def units(number, requests=200.0, errors=0.0, kind="c", **more):
    return tuple(served(requests, errors, f"ns/{kind}{i}", **more) for i in range(number))


def pods(kind, number):
    return Cohort(kind, pods=frozenset(("ns", f"{kind}{i}") for i in range(number)))


def nodes(kind, number):
    return Cohort(kind, nodes=frozenset(f"ns/{kind}{i}" for i in range(number)))


def seen(canary, stable, of=pods, sizes=(10, 10), **heard):
    """Evidence of cohorts of that size, of which these units served."""
    whole = replace(source(canary, stable), **heard)
    return replace(evidence(whole), canary=of("c", sizes[0]), stable=of("s", sizes[1]))


def row(report, name):
    return next((c for c in report.checks if c.name == name), None)


ALL = units(10, kind="s")
SEEN = [
    pytest.param(units(10), ALL, pods, PROCEED, id="all of ten pods"),
    pytest.param(units(8), ALL, pods, PROCEED, id="eight of ten pods"),
    pytest.param(units(7), ALL, pods, CONTINUE, id="seven of ten pods"),
    pytest.param(units(1), ALL, pods, CONTINUE, id="one pod serves and nine have crashed"),
    pytest.param(units(1), ALL[:1], pods, CONTINUE, id="pods are alike: stable is no excuse"),
    pytest.param(units(1), ALL, nodes, CONTINUE, id="one node of ten, and stable's all serve"),
    pytest.param(units(5), ALL[:5], nodes, PROCEED, id="half of the nodes serve, on either side"),
    pytest.param(units(3), ALL[:5], nodes, CONTINUE, id="fewer nodes than of the rest serve"),
    pytest.param(units(10), ALL[:5], nodes, PROCEED, id="more nodes than of the rest serve"),
    pytest.param(units(1, errors=50.0), ALL, pods, ROLL_BACK, id="the one that serves, fails"),
]


@pytest.mark.parametrize(("canary", "stable", "of", "wanted"), SEEN)
def test_a_canary_proceeds_only_when_enough_of_it_is_seen(canary, stable, of, wanted):
    report = compare(seen(canary, stable, of), RULES)
    assert report.advice is wanted, report.reason


def test_the_row_says_how_many_were_seen():
    report = compare(seen(units(1), ALL), RULES)
    check = row(report, "canary seen")
    assert (check.canary, check.stable, check.limit) == (0.1, 1.0, 0.8)
    assert (check.requests, check.stable_requests) == (10, 10)
    assert report.reason == "canary seen is not known yet: 1 of 10 nodes or pods were seen"


def test_an_idle_pod_whose_series_are_there_is_seen():
    idle = Heard(seen=frozenset(u.unit for u in units(10)))
    assert compare(seen(units(2), ALL, canary_heard=idle), RULES).advice is PROCEED


def test_series_of_strangers_stand_in_for_no_member():
    strangers = units(2) + units(8, kind="x")
    assert compare(seen(strangers, ALL), RULES).advice is CONTINUE


def test_one_returned_node_is_all_of_its_cohort():
    report = compare(seen(units(1), ALL, nodes, sizes=(1, 10)), RULES)
    assert report.advice is PROCEED


def test_of_matchers_nobody_knows_who_is_missing():
    by_label = Cohort("c", matchers='version="2"')
    report = compare(replace(seen(units(1), ALL), canary=by_label), RULES)
    assert row(report, "canary seen") is None
    assert report.advice is PROCEED


QUEUE = BusinessMetric(name="queue", query="x{$match}", limit=10)
WITH_QUEUE = RULES.model_copy(update={"metrics": (QUEUE,)})


@pytest.mark.parametrize(("told", "wanted"), [(10, PROCEED), (1, CONTINUE)])
def test_without_requests_a_business_metric_says_who_is_seen(told, wanted):
    values = MetricValues("queue", {u.unit: 1.0 for u in units(told)}, {u.unit: 1.0 for u in ALL})
    asked = replace(seen((), ()), sources=(), metrics=(values,))
    assert compare(asked, WITH_QUEUE).advice is wanted


# ------------------------------------------------------------------------- numbers that are none


def unknown(*, errors=False, successes=False, latency=False, kind="c", of=10, good=1):
    """So many pods, all but the good ones with something that is no number."""
    told = timed((0.2, 200), unit="")
    unclear = frozenset(n for n, on in (("successes", successes), ("latency", latency)) if on)
    odd = replace(told, unclear=unclear, buckets=() if latency else told.buckets)
    odd = replace(odd, errors=None) if errors else odd
    made = [told] * good + [odd] * (of - good)
    return tuple(replace(u, unit=f"ns/{kind}{i}") for i, u in enumerate(made))


FINE, FINE_STABLE = unknown(), unknown(kind="s")
RATES = ("web error rate", "web error rate against stable")
UNTOLD = [
    pytest.param(unknown(errors=True), FINE_STABLE, (*RATES, "web success rate"), id="errors"),
    pytest.param(unknown(successes=True), FINE_STABLE, ("web success rate",), id="successes"),
    pytest.param(
        unknown(latency=True), FINE_STABLE, ("web p99", "web p99 against stable"), id="latency"
    ),
    pytest.param(FINE, unknown(errors=True, kind="s"), RATES[1:], id="errors of stable"),
    pytest.param(
        FINE, unknown(latency=True, kind="s"), ("web p99 against stable",), id="latency of stable"
    ),
    pytest.param(unknown(errors=True, good=9), FINE_STABLE, RATES[:1], id="errors of one of ten"),
]


@pytest.mark.parametrize(("canary", "stable", "rows"), UNTOLD)
def test_what_is_no_number_is_no_pass(canary, stable, rows):
    report = compare(seen(canary, stable), RULES)
    outcomes = {c.name: (c.outcome, c.note) for c in report.checks}
    for name in rows:
        assert outcomes[name][0] is CheckOutcome.UNKNOWN
        assert "10 nodes or pods it could not be told" in outcomes[name][1]
    assert report.advice is CONTINUE


def test_a_small_share_without_numbers_holds_nothing_up():
    canary = unknown(errors=True, of=20, good=19)
    assert compare(seen(canary, FINE_STABLE, sizes=(20, 10)), RULES).advice is PROCEED


def test_one_unknown_pod_that_serves_much_is_no_small_share():
    canary = list(unknown(errors=True, of=20, good=19))
    canary[-1] = replace(canary[-1], requests=9000.0)
    assert compare(seen(canary, FINE_STABLE, sizes=(20, 10)), RULES).advice is CONTINUE


def test_pods_whose_requests_are_no_number_are_not_forgotten():
    odd = Heard(seen=frozenset(u.unit for u in FINE), unknown=frozenset({"ns/c8", "ns/c9"}))
    report = compare(seen(FINE[:8], FINE_STABLE, canary_heard=odd), RULES)
    assert report.advice is CONTINUE
    assert "2 of 10" in row(report, "web error rate").note


def test_a_source_of_nothing_but_unknown_requests_is_not_silent():
    odd = Heard(unknown=frozenset({"ns/c0"}))
    assert not replace(source([], []), canary_heard=odd).is_silent


def test_what_is_seen_to_fail_fails_though_the_rest_is_unknown():
    bad = (*units(5, errors=100.0), *unknown(errors=True, good=0)[5:])
    assert compare(seen(bad, ALL), RULES).advice is ROLL_BACK


@pytest.mark.parametrize(("odd", "wanted"), [(0, PROCEED), (1, CONTINUE), (9, CONTINUE)])
def test_a_business_value_that_is_no_number_is_no_pass(odd, wanted):
    names = [u.unit for u in units(10)]
    heard = Heard(frozenset(names), frozenset(names[10 - odd :]))
    told = dict.fromkeys(names[: 10 - odd], 1.0)
    stable = dict.fromkeys((u.unit for u in ALL), 1.0)
    values = MetricValues("queue", told, stable, canary_heard=heard)
    asked = replace(seen((), ()), sources=(), metrics=(values,))
    assert compare(asked, WITH_QUEUE).advice is wanted
