"""A second source confirms that metrics are of the node they accuse."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources

import pytest

from breakfix.model import Observation
from breakfix.observe.identity import confirmed_nodes
from breakfix.policy import parse_policy
from breakfix.ports import QueryResult, Sample
from tests.fakes_cluster import make_node, make_pod

AT = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = parse_policy(resources.files("breakfix").joinpath("policy.yaml").read_text())


class OneAnswer:
    def __init__(self, *labels):
        self.labels, self.asked = labels, 0

    def query(self, promql, *, at):
        self.asked += 1
        return QueryResult(tuple(Sample(x, 1.0) for x in self.labels))


def confirm(*labels, wanted=("gpu-1",)):
    pods = (
        make_pod("exporter-a", node="gpu-1", namespace="gpu-operator"),
        make_pod("train-0", node="gpu-1", namespace="team"),
        make_pod("train-9", node="gpu-2", namespace="team"),
    )
    seen = Observation(AT, nodes=(make_node("gpu-1"), make_node("gpu-2")), pods=pods)
    return confirmed_nodes(OneAnswer(*labels), seen, POLICY, wanted)


@pytest.mark.parametrize(
    ("labels", "is_confirmed"),
    [
        pytest.param(
            {"Hostname": "gpu-1"}, False, id="one label of the exporter's own is not enough"
        ),
        pytest.param({"node": "gpu-1"}, False, id="nor is the scrape target's alone"),
        pytest.param(
            {"Hostname": "gpu-1", "hostname": "gpu-1"},
            False,
            id="two labels of one hand are one word",
        ),
        pytest.param({"Hostname": "gpu-1", "node": "gpu-1"}, True, id="target and exporter agree"),
        pytest.param(
            {"Hostname": "gpu-1", "node": "gpu-2"}, False, id="target and exporter disagree"
        ),
        pytest.param(
            {"Hostname": "gpu-1", "namespace": "gpu-operator", "pod": "exporter-a"},
            True,
            id="the exporter's pod runs there",
        ),
        pytest.param(
            {"Hostname": "gpu-1", "exported_namespace": "team", "exported_pod": "train-0"},
            True,
            id="the workload's pod runs there",
        ),
        pytest.param(
            {"Hostname": "gpu-1", "namespace": "team", "pod": "train-9"},
            False,
            id="the pod runs elsewhere",
        ),
        pytest.param(
            {"Hostname": "gpu-1", "namespace": "team", "pod": "nobody"},
            False,
            id="there is no such pod",
        ),
    ],
)
def test_metrics_are_believed_only_with_a_second_source(labels, is_confirmed):
    assert ("gpu-1" in confirm(labels)) is is_confirmed


def test_nothing_is_asked_while_nobody_is_accused():
    metrics = OneAnswer({"Hostname": "gpu-1", "node": "gpu-1"})
    seen = Observation(AT, nodes=(make_node("gpu-1"),))
    assert confirmed_nodes(metrics, seen, POLICY, ()) == {}
    assert metrics.asked == 0
