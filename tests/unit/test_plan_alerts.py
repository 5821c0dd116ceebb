"""Alerts of Prometheus that hold disruption: which nodes, and what when nobody can tell."""

from __future__ import annotations

import pytest

from breakfix.errors import MetricsError
from breakfix.model import FiringAlerts
from breakfix.observe.alerts import QUERY, read_alerts
from breakfix.ports import QueryResult, Sample
from tests.fakes_metrics import FakeMetrics
from tests.unit.plan_world import NOW, plan, policy, said

WATCHDOG = {"alertname": "Watchdog"}


def named(*block, **more):
    return policy(alerts={"block": list(block), "ignore": [{"alertname": "Breakfix.*"}], **more})


def firing(*alerts, error=""):
    return FiringAlerts((WATCHDOG, *alerts), error)


API = {"match": {"alertname": "KubeAPIDown|etcd.*"}, "reason": "the control plane is not well"}
POWER = {"match": {"alertname": "RackPower", "severity": "critical"}, "by": "rack"}
NODE = {"match": {"alertname": "DiskFull"}, "by": "node"}


@pytest.mark.parametrize(
    ("rules", "alerts", "answer"),
    [
        pytest.param(named(API), firing(), "admitted", id="nothing fires"),
        pytest.param(named(API), firing({"alertname": "etcdNoLeader"}), "alert", id="one does"),
        pytest.param(
            named(API), firing({"alertname": "MyKubeAPIDown"}), "admitted", id="anchored as a whole"
        ),
        pytest.param(
            named(POWER),
            firing({"alertname": "RackPower", "severity": "critical", "rack": "r0"}),
            "alert",
            id="the node's rack is named",
        ),
        pytest.param(
            named(POWER),
            firing({"alertname": "RackPower", "severity": "critical", "rack": "r9"}),
            "admitted",
            id="another rack is named",
        ),
        pytest.param(
            named(POWER),
            firing({"alertname": "RackPower", "severity": "warning", "rack": "r0"}),
            "admitted",
            id="another severity",
        ),
        pytest.param(
            named(POWER),
            firing({"alertname": "RackPower", "severity": "critical"}),
            "alert",
            id="no rack is named: it may be any",
        ),
        pytest.param(
            named(POWER | {"label": "cabinet"}),
            firing({"alertname": "RackPower", "severity": "critical", "cabinet": "r0"}),
            "alert",
            id="the rack under another label",
        ),
        pytest.param(
            named(NODE),
            firing({"alertname": "DiskFull", "instance": "n0:9100"}),
            "alert",
            id="the node by its instance, port and all",
        ),
        pytest.param(
            named(NODE),
            firing({"alertname": "DiskFull", "node": "n1", "instance": "n0:9100"}),
            "admitted",
            id="the likelier label is believed",
        ),
        pytest.param(
            named({"match": {"alertname": ".*"}}, ignore=[WATCHDOG, {"alertname": "Breakfix.*"}]),
            firing({"alertname": "BreakfixHeld"}),
            "admitted",
            id="our own are no reason",
        ),
        pytest.param(named(API), firing(error="timeout"), "alert", id="Prometheus did not answer"),
        pytest.param(named(API), None, "alert", id="nobody asked it"),
        pytest.param(
            named(API, watchdog="Watchdog"), FiringAlerts(()), "alert", id="no watchdog fires"
        ),
        pytest.param(named(API, watchdog=""), FiringAlerts(()), "admitted", id="none is wanted"),
        pytest.param(named(), firing(error="timeout"), "admitted", id="no alert is named at all"),
    ],
)
def test_what_holds_a_node(rules, alerts, answer):
    made = plan(rules=rules, alerts=alerts)
    assert said(made) == answer
    if answer == "alert":
        assert "alert" in made.refusals[0].text


def test_a_refusal_names_the_alert_and_why_policy_heeds_it():
    made = plan(rules=named(API), alerts=firing({"alertname": "etcdNoLeader", "node": "m1"}))
    text = "alert etcdNoLeader fires (node=m1): the control plane is not well"
    assert made.refusals[0].text == text


# --------------------------------------------------------------------------- how they are read


class Broken(FakeMetrics):
    def query(self, promql, *, at):
        raise MetricsError("connection refused")


def test_nothing_is_asked_while_policy_names_none():
    metrics = FakeMetrics()
    assert read_alerts(metrics, policy(), at=NOW) is None
    assert metrics.asked == []


def test_one_query_reads_them_all():
    sample = Sample({"alertname": "etcdNoLeader", "alertstate": "firing"}, 1.0)
    metrics = FakeMetrics({QUERY: QueryResult((sample,))})
    found = read_alerts(metrics, named(API), at=NOW)
    assert found.labels[0]["alertname"] == "etcdNoLeader"
    assert metrics.asked == [QUERY]


@pytest.mark.parametrize(
    "metrics",
    [Broken(), FakeMetrics({QUERY: QueryResult((), ("one store did not answer",))})],
    ids=["no answer", "a partial answer"],
)
def test_what_is_not_read_whole_is_an_error(metrics):
    assert read_alerts(metrics, named(API), at=NOW).error
