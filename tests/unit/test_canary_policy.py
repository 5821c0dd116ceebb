"""Every number of the canary section decides something; and what may be written there."""

from __future__ import annotations

import math

import pytest

from breakfix.cohorts import Advice, Cohort
from breakfix.decide.canary import compare
from breakfix.errors import SettingsError
from breakfix.observe.canary import find_cohort
from breakfix.observe.canary.places import Places
from breakfix.observe.canary.queries import fill, match_of, parse_matchers, quoted
from breakfix.policy import parse_policy
from breakfix.ports import Sample
from breakfix.wiring import default_policy_text
from tests.canaries import RULES, evidence, health, served, source, spread, timed
from tests.fakes_cluster import make_node

P, R, C = Advice.PROCEED, Advice.ROLL_BACK, Advice.CONTINUE


def rates(canary, stable):
    return evidence(source(spread(*canary, 4), spread(*stable, 4)))


def times(canary, stable):
    return evidence(source([timed(*canary)], [timed(*stable)]))


def nodes(canary, stable):
    return evidence(health=(health(*canary), health(*stable)))


def part_seen(seen, nodes):
    served = source(spread(1000, 0, seen), spread(1000, 0, 4))
    return evidence(served, canary=[f"n{i}" for i in range(nodes)])


def quick(canary_s, stable_s):
    """All requests at the end of a fine bucket."""
    bounds = (0.01, 0.02, 0.04, 0.05, 0.09, 0.1, 0.2, math.inf)
    units = (
        [served(999, buckets=tuple((b, 999.0 * (b >= s)) for b in bounds))]
        for s in (canary_s, stable_s)
    )
    return evidence(source(*units))


NUMBERS = [
    pytest.param("absolute.error_rate", 0.5, rates((1000, 40), (1000, 40)), P, R, id="error rate"),
    pytest.param("absolute.p99_s", 0.5, times([(0.9, 500)], [(0.9, 500)]), P, R, id="p99 halved"),
    pytest.param("absolute.p99_s", 2.5, times([(2.0, 500)], [(2.0, 500)]), R, P, id="p99 raised"),
    pytest.param("absolute.sick_nodes", 0.5, nodes((6, 3), (6, 0)), C, R, id="sick nodes halved"),
    pytest.param("absolute.sick_nodes", 2, nodes((4, 3), (6, 0)), R, C, id="sick nodes doubled"),
    pytest.param(
        "relative.error_rate", 0.75, rates((9000, 160), (9000, 90)), P, R, id="ratio less"
    ),
    pytest.param(
        "relative.error_rate", 2, rates((9000, 240), (9000, 90)), R, P, id="ratio doubled"
    ),
    pytest.param(
        "relative.error_rate_floor",
        0.5,
        rates((9000, 80), (9000, 1)),
        P,
        R,
        id="error floor halved",
    ),
    pytest.param(
        "relative.error_rate_floor",
        2,
        rates((9000, 130), (9000, 1)),
        R,
        P,
        id="error floor doubled",
    ),
    pytest.param(
        "relative.p99",
        2,
        times([(0.2, 800), (0.45, 200)], [(0.2, 1000)]),
        R,
        P,
        id="p99 ratio doubled",
    ),
    pytest.param("relative.p99_floor_s", 2, quick(0.1, 0.02), R, P, id="p99 floor doubled"),
    pytest.param("relative.p99_floor_s", 0.5, quick(0.05, 0.02), P, R, id="p99 floor halved"),
    pytest.param("relative.sick_nodes", 2, nodes((90, 27), (90, 9)), R, P, id="sick ratio doubled"),
    pytest.param(
        "relative.sick_nodes_floor", 2, nodes((200, 12), (900, 1)), R, P, id="sick floor doubled"
    ),
    pytest.param("min_requests", 0.5, rates((60, 30), (60, 0)), C, R, id="fewer requests do"),
    pytest.param("min_requests", 2, rates((150, 30), (150, 0)), R, C, id="more requests wanted"),
    pytest.param("min_seen", 0.5, part_seen(1, 2), C, P, id="half of the canary does"),
    pytest.param("min_seen", 1.25, part_seen(4, 5), P, C, id="all of the canary wanted"),
    pytest.param("min_nodes", 2, nodes((4, 0), (50, 0)), P, C, id="more nodes wanted"),
    pytest.param("min_nodes", 0.5, nodes((2, 0), (50, 0)), C, P, id="fewer nodes do"),
    pytest.param("alpha", 2, rates((700, 13), (700, 2)), C, R, id="alpha doubled"),
    pytest.param("alpha", 0.5, rates((700, 15), (700, 2)), R, C, id="alpha halved"),
    pytest.param("looks", 0.5, rates((700, 13), (700, 2)), C, R, id="half the looks"),
    pytest.param("looks", 2, rates((700, 15), (700, 2)), R, C, id="twice the looks"),
]


def scaled(path, factor):
    """The default rules with one number multiplied."""
    *parts, name = path.split(".")
    holder = getattr(RULES, parts[0]) if parts else RULES
    old = getattr(holder, name)
    new = type(old)(math.floor(old * factor)) if isinstance(old, int) else old * factor
    if name == "error_rate" and parts == ["relative"]:
        new = max(new, 1.01)
    changed = holder.model_copy(update={name: new})
    return RULES.model_copy(update={parts[0]: changed}) if parts else changed


@pytest.mark.parametrize(("path", "factor", "seen", "before", "after"), NUMBERS)
def test_a_number_changed_by_a_factor_changes_an_answer(path, factor, seen, before, after):
    assert compare(seen, RULES).advice is before
    assert compare(seen, scaled(path, factor)).advice is after


def test_the_success_rate_acts_beside_the_error_rate():
    lax = RULES.absolute.model_copy(update={"error_rate": 0.1, "success_rate": 0.9})
    seen = rates((1000, 70), (1000, 70))
    assert compare(seen, RULES.model_copy(update={"absolute": lax})).advice is P


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        ("canary: {window: soon}", "canary.window"),
        ("canary: {window: 1s}", "canary.window"),
        ("canary: {alpha: 1}", "canary.alpha"),
        ("canary: {relative: {error_rate: 1}}", "canary.relative.error_rate"),
        ("canary: {relative: {error_rate_floor: 0}}", "error_rate_floor"),
        ("canary: {replicas: ['a) or up']}", "canary.replicas"),
        ("canary: {surprise: 1}", "canary.surprise"),
        ("canary: {metrics: [{name: x, query: up}]}", "$match"),
        ("canary: {metrics: [{name: x, query: 'up{$match}'}]}", "needs limit, ratio or both"),
        ("canary: {sources: {vllm: {errors: 'x{$match $pod}'}}}", "$pod"),
    ],
)
def test_a_wrong_overlay_names_the_place(overlay, says):
    with pytest.raises(SettingsError) as error:
        parse_policy(default_policy_text(), overlay)
    assert says in str(error.value)


def test_an_overlay_adds_a_source_and_leaves_the_others():
    more = "canary: {sources: {mine: {requests: 'a{$match}', errors: 'b{$match}', source: me}}}"
    policy = parse_policy(default_policy_text(), more)
    assert set(policy.canary.sources) == {*RULES.sources, "mine"}
    assert policy.hash != parse_policy(default_policy_text()).hash


# --------------------------------------------------------------------------- queries and selectors


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('app="chat"', 'app="chat"'),
        (' {app="chat", version=~"2.*"} ', 'app="chat",version=~"2.*"'),
        ('a!="x",b!~"y",', 'a!="x",b!~"y"'),
        ('a="with \\" and , and }"', 'a="with \\" and , and }"'),
    ],
)
def test_matchers(text, wanted):
    assert parse_matchers(text) == wanted


@pytest.mark.parametrize(
    "text",
    ['a="x"} or up{b="y"', 'a="x" b="y"', '"x"', 'a="x', "a='x'", 'a="x"))', "__name__", '9a="x"'],
)
def test_anything_else_is_no_matchers(text):
    with pytest.raises(SettingsError, match="no label matchers"):
        parse_matchers(text)


def test_hostile_names_stay_data():
    evil = 'x"} or up{a="\\'
    cohort = Cohort("evil", pods=frozenset({(evil, "p")}))
    assert match_of(cohort) == 'namespace="x\\"} or up{a=\\"\\\\",'
    assert quoted("a\nb") == '"a\\nb"'
    query = fill("a{$match}", by=("pod",), cohort=cohort, window_s=60)
    assert query == 'a{namespace="x\\"} or up{a=\\"\\\\",}'


def test_words_in_a_value_are_not_filled_in_again():
    cohort = Cohort("odd", matchers='a="$window"')
    assert fill("x{$match}[$window]", by=(), cohort=cohort, window_s=60) == (
        'x{a="$window",}[60000ms]'
    )


NODES = [make_node("n1", labels={"a": "1"}), make_node("n2", labels={"a": "2"})]


@pytest.mark.parametrize("text", ["a=1", "nodes:a=1", " a=1 ", "a,a!=2"])
def test_nodes_by_label(text):
    assert find_cohort(text, NODES, []).nodes == {"n1"}


def test_a_pod_on_two_nodes_is_placed_nowhere():
    bound = {("ns", "p"): "n1", ("ns", "q"): "n1"}
    seen = [
        Sample({"namespace": "ns", "pod": "p", "node": "n2"}, 1.0),
        Sample({"namespace": "ns", "pod": "q", "node": "n1"}, 1.0),
    ]
    places, odd = Places.of(bound, seen)
    assert places.node_of == {("ns", "q"): "n1"}
    assert odd == ("pods on two nodes in the window, not counted: 1",)


PLACED = Places({("ns", "p"): "n1"}, nodes=frozenset({"n1", "n2"}))
OWN = {"namespace": "mon", "pod": "gateway", "instance": "10.0.0.9:80"}
NAMED = [
    pytest.param({"namespace": "ns", "pod": "p", "node": "n2"}, "n1", id="its pod's node first"),
    pytest.param({"node": "n1"}, "n1", id="a node label alone"),
    pytest.param({"Hostname": "n1", "instance": "10.0.0.9:80"}, "n1", id="a host's name"),
    pytest.param({"instance": "n1"}, "n1", id="an instance without a port"),
    pytest.param({"instance": "n1:9100"}, "n1", id="an instance with one"),
    pytest.param({"node": "n2", "instance": "n1:9100"}, "", id="a label that names another node"),
    pytest.param({"node": "shard-3", "instance": "n1:9100"}, "n1", id="a label that names none"),
    pytest.param(
        {**OWN, "exported_namespace": "ns", "exported_pod": "p"}, "n1", id="the pod spoken of"
    ),
    pytest.param(
        {"exported_node": "n1", "node": "n2"}, "n1", id="the node spoken of, not the exporter's"
    ),
    pytest.param({**OWN, "exported_pod": "p"}, "", id="half of an exported name"),
    pytest.param({}, "", id="nothing"),
]


@pytest.mark.parametrize(("labels", "unit"), NAMED)
def test_a_series_is_placed_by_the_first_label_that_names_a_node(labels, unit):
    assert PLACED.unit_of(labels, Cohort("c", nodes=frozenset({"n1"}))) == unit


def test_a_pod_that_moved_is_on_no_node_whatever_its_labels_say():
    odd = [Sample({"namespace": "ns", "pod": "p", "node": "n2"}, 1.0)]
    places, _ = Places.of({("ns", "p"): "n1"}, odd)
    moved = {"namespace": "ns", "pod": "p", "node": "n1"}
    assert places.unit_of(moved, Cohort("c", nodes=frozenset({"n1"}))) == ""


def test_a_pod_is_known_by_what_its_series_speaks_of():
    cohort = Cohort("c", pods=frozenset({("ns", "p")}))
    spoken_of = {**OWN, "exported_namespace": "ns", "exported_pod": "p"}
    assert PLACED.unit_of(spoken_of, cohort) == "ns/p"
