"""Queries about one node read nothing of the others, and believe no series that names two."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from breakfix.errors import MetricsError
from breakfix.observe.one_node import counters_of, least_of, node_query
from breakfix.policy import parse_policy
from breakfix.policy_validation import CounterRule
from breakfix.ports import QueryResult, Sample
from breakfix.wiring import default_policy_text

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = parse_policy(default_policy_text())
RULE = CounterRule(
    name="dbe",
    query="max by ($node, $gpu) (max_over_time(DBE{$match}[$window]))",
    text="errors",
    source="test",
)


class Metrics:
    def __init__(self, *samples, warnings=(), error=""):
        self.answer = error or QueryResult(samples, tuple(warnings))
        self.asked = []

    def query_many(self, queries, *, at):
        self.asked += queries.values()
        return dict.fromkeys(queries, self.answer)

    def query(self, promql, *, at):
        self.asked.append(promql)
        if isinstance(self.answer, str):
            raise MetricsError(self.answer)
        return self.answer


def counted(metrics, node="gpu-1"):
    return counters_of(metrics, POLICY, node, [RULE], at=NOW, window_s=3600)["dbe"]


def test_every_way_of_naming_the_node_is_asked_for_and_no_other_node():
    text = node_query(RULE.query, POLICY, "gpu-1.rack", 3600)
    assert text.count("DBE{") == len(POLICY.names.node)
    assert 'DBE{Hostname="gpu-1.rack"}[3600000ms]' in text
    assert 'DBE{instance=~"gpu-1[.]rack(:[0-9]+)?"}' in text
    assert "$" not in text


def test_a_name_cannot_leave_its_quotes():
    assert '"}' not in node_query(RULE.query, POLICY, 'a"} or up{x="', 60).replace('"}[', "")


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        pytest.param([({"Hostname": "gpu-1", "UUID": "A"}, 3.0)], {"A": 3.0}, id="one GPU"),
        pytest.param(
            [({"instance": "gpu-1:9400", "gpu": "0"}, 3.0)], {"0": 3.0}, id="by its target"
        ),
        pytest.param([({"Hostname": "gpu-2", "UUID": "A"}, 3.0)], {}, id="another node"),
        pytest.param([({"Hostname": "gpu-1", "UUID": "A"}, 2.0**63)], {}, id="no measurement"),
        pytest.param(
            [({"Hostname": "gpu-1", "UUID": "A"}, 2147483632.0)], {}, id="a 32-bit field's blank"
        ),
        pytest.param(
            [({"node": "gpu-1", "UUID": "A"}, 3.0), ({"Hostname": "gpu-1", "UUID": "A"}, 5.0)],
            {"A": 5.0},
            id="told twice: the larger one",
        ),
    ],
)
def test_values_are_those_of_the_node_by_gpu(samples, found):
    assert counted(Metrics(*(Sample(*s) for s in samples))) == found


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        pytest.param(Metrics(error="timeout"), "timeout", id="an error"),
        pytest.param(Metrics(warnings=["partial response"]), "incomplete", id="half an answer"),
    ],
)
def test_what_cannot_be_read_says_why(metrics, why):
    found = counted(metrics)
    assert isinstance(found, str)
    assert why in found


def test_the_least_of_what_a_node_reports():
    query = "min by ($node) (ready{$match})"
    two = Metrics(*(Sample({"node": "gpu-1", "x": x}, v) for x, v in (("a", 1.0), ("b", 0.0))))
    assert least_of(two, POLICY, "gpu-1", query, at=NOW) == 0.0
    assert least_of(Metrics(), POLICY, "gpu-1", query, at=NOW) != 0.0
    with pytest.raises(MetricsError):
        least_of(Metrics(error="away"), POLICY, "gpu-1", query, at=NOW)
