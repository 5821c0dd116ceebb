"""What spoke, is silent and is not reported has not ended: neither by one GPU's loss of a field nor
by a whole fleet's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from breakfix.model import Coverage, OpenFinding, Reading, SignalKind, SignalMode
from breakfix.observe.fleet import Fleet
from breakfix.observe.labels import NodeNames
from breakfix.observe.promql import MOST_NODES, coverage_query, reporting_query
from breakfix.observe.unreported import read_unreported
from tests.fakes_cluster import make_node
from tests.observations import NOW, POLICY
from tests.unit.test_observe_coverage import DBE, FLEET, MOMENT, XID, Prometheus

SEEN = {s.name: Coverage(s.name, frozenset(FLEET.nodes), len(FLEET.nodes)) for s in POLICY.signals}
DBE_2 = OpenFinding("ecc_dbe", "2")
EARLIER = NOW - timedelta(hours=1)


def unreported(
    server: Prometheus,
    *findings: OpenFinding,
    readings: Iterable[Reading] = (),
    coverage: Mapping[str, Coverage] | None = None,
    fleet: Fleet = FLEET,
    at: datetime = NOW,
) -> tuple[OpenFinding, ...]:
    found, told = read_unreported(
        server,
        fleet,
        POLICY,
        at=at,
        readings=readings,
        coverage={**SEEN, **(coverage or {})},
        open_findings={"gpu-1": findings, "not-ours": findings},
    )
    assert found.keys() <= {"gpu-1"}
    assert list(told) == (
        ["ecc_dbe: which GPUs report it could not be read: timed out"]
        if server.broken == DBE
        else []
    )
    return found.get("gpu-1", ())


def whole() -> Prometheus:
    return Prometheus().has("gpu-1").has("gpu-2").has("gpu-3")


def test_a_finding_whose_gpu_reports_the_signal_has_ended():
    assert unreported(whole(), DBE_2) == ()


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(Prometheus().has("gpu-1", "0134567"), id="one GPU lost the field"),
        pytest.param(Prometheus().has("gpu-2"), id="the node lost it"),
        pytest.param(Prometheus().has("gpu-1", "01234567", XID), id="the fleet lost it"),
        pytest.param(
            Prometheus().has("gpu-1", "0134567").has("gpu-2", "2"),
            id="another node's GPU is not it",
        ),
        pytest.param(
            Prometheus().has("gpu-1", "0134567").has("gpu-1", "2", DBE, value=float("nan")),
            id="it says NaN",
        ),
        pytest.param(
            Prometheus().has("gpu-1", "0134567").has("gpu-1", "2", DBE, value=2.0**63),
            id="it says a blank of 64 bits",
        ),
        pytest.param(
            Prometheus().has("gpu-1", "0134567").has("gpu-1", "2", DBE, value=float(0x7FFFFFF2)),
            id="it says a blank of 32 bits",
        ),
        pytest.param(
            Prometheus().has("gpu-1", "0134567").has("gpu-1", "2", DBE, value=2.0**47 + 1),
            id="it says a blank of a floating-point field",
        ),
        pytest.param(Prometheus(broken=DBE).has("gpu-1"), id="Prometheus does not answer"),
    ],
)
def test_what_is_silent_and_not_reported_has_not_ended(server):
    assert unreported(server, DBE_2) == (OpenFinding("ecc_dbe", "2", missed_at=NOW),)


def test_it_is_missed_since_it_was_first_missed():
    missed = OpenFinding("row_remap_failed", "2", missed_at=EARLIER)
    rule = next(s for s in POLICY.signals if s.name == missed.signal)
    assert rule.kind is SignalKind.STATE
    assert unreported(Prometheus(), missed) == (missed,)


def test_what_still_speaks_is_not_missed_and_nobody_asks():
    server = Prometheus()
    assert unreported(server, DBE_2, readings=[Reading("ecc_dbe", "gpu-1", "2", 1.0)]) == ()
    assert server.asked == []


def test_where_the_whole_node_is_not_seen_nobody_asks():
    server = whole()
    dark = {"ecc_dbe": Coverage("ecc_dbe", frozenset({"gpu-2"}), 3)}
    assert unreported(server, DBE_2, coverage=dark) == (OpenFinding("ecc_dbe", "2", NOW),)
    assert server.asked == []


def test_a_nodes_own_finding_ends_with_the_nodes_report():
    finding = OpenFinding("gpu_count_short")
    assert unreported(Prometheus(), finding) == ()
    dark = {"gpu_count_short": Coverage("gpu_count_short", frozenset(), 3)}
    assert unreported(whole(), finding, coverage=dark) == (OpenFinding("gpu_count_short", "", NOW),)


def test_where_as_many_others_report_the_gpu_was_replaced():
    replaced = Prometheus().has("gpu-1", "01345678")
    assert FLEET.nodes["gpu-1"].gpus_capacity == 8
    assert unreported(replaced, DBE_2) == ()


def test_two_exporters_that_name_a_gpu_in_two_ways_are_no_more_gpus():
    server = Prometheus().has("gpu-1", "0134567")
    for gpu in "0134567":
        server.has("gpu-1", gpu, DBE, UUID=f"GPU-{gpu}")
    assert unreported(server, OpenFinding("ecc_dbe", "GPU-2")) == (
        OpenFinding("ecc_dbe", "GPU-2", NOW),
    )


def test_a_gpu_that_goes_by_another_name_now_is_no_lost_one():
    server = Prometheus().has("gpu-1")
    assert unreported(server, OpenFinding("ecc_dbe", "GPU-2")) == ()


def test_a_node_that_forgot_its_gpu_has_it_missed_as_its_like_have_it():
    shrunk = make_node("gpu-1", gpus_capacity=7)
    fleet = Fleet({**FLEET.nodes, "gpu-1": shrunk}, FLEET.names)
    server = Prometheus().has("gpu-1", "0134567")
    assert unreported(server, DBE_2, fleet=fleet) == (OpenFinding("ecc_dbe", "2", NOW),)


def test_a_signal_that_nobody_reports_by_gpu_is_reported_by_the_node():
    server = Prometheus().has("gpu-1", [""], DBE)
    assert unreported(server, DBE_2) == ()


def test_a_new_node_of_the_same_name_is_another_node():
    missed = OpenFinding("row_remap_failed", "2", missed_at=EARLIER)
    for born, found in ((EARLIER - timedelta(days=9), (missed,)), (NOW, ())):
        nodes = {**FLEET.nodes, "gpu-1": make_node("gpu-1", created_at=born)}
        assert unreported(Prometheus(), missed, fleet=Fleet(nodes, FLEET.names)) == found


def test_what_never_acts_is_not_missed():
    quiet = next(s.name for s in POLICY.signals if s.mode is SignalMode.NEVER and s.input == "gpu")
    assert unreported(Prometheus(), OpenFinding(quiet, "2", EARLIER)) == ()


def test_thousands_are_missed_at_once():
    names = [f"n-{i}" for i in range(2000)]
    nodes = {n: make_node(n) for n in names}
    fleet = Fleet(nodes, NodeNames(POLICY.names, frozenset(names)))
    dark = {s.name: Coverage(s.name, frozenset(), len(names)) for s in POLICY.signals}
    findings = {n: tuple(OpenFinding("ecc_dbe", str(g)) for g in range(8)) for n in names}
    found, _ = read_unreported(
        Prometheus(), fleet, POLICY, at=NOW, readings=(), coverage=dark, open_findings=findings
    )
    assert sum(map(len, found.values())) == 16_000


def test_where_nobody_knows_how_many_there_should_be_none_was_replaced():
    nobody = Fleet({"gpu-1": make_node("gpu-1", gpus_capacity=0)}, FLEET.names)
    replaced = Prometheus().has("gpu-1", "01345678")
    assert unreported(replaced, DBE_2, fleet=nobody) == (OpenFinding("ecc_dbe", "2", NOW),)


def test_an_event_is_missed_for_its_window():
    window = timedelta(seconds=next(s.window_s for s in POLICY.signals if s.name == "xid_last"))
    missed = OpenFinding("xid_last", "2", missed_at=NOW)
    just_before = NOW + window - timedelta(seconds=1)
    assert unreported(Prometheus(), missed, at=just_before) == (missed,)
    assert unreported(Prometheus(), missed, at=NOW + window) == ()


def test_a_repair_that_ended_the_only_series_of_a_counter_lost_nothing():
    total = "DCGM_EXP_XID_ERRORS_TOTAL"
    server = whole().has("gpu-1", "2", total, age_s=1800.0, xid="79")
    assert unreported(server, OpenFinding("xid_total", "2")) == ()
    rule = next(s for s in POLICY.signals if s.name == "xid_total")
    covers = coverage_query(rule, POLICY.names, stale_s=180.0, with_ages=False)
    assert len(server.query_many({"": covers}, at=NOW)[""].samples) == 3


def test_one_query_a_signal_whatever_is_missed():
    server = Prometheus().has("gpu-1", "013567")
    found = unreported(server, DBE_2, OpenFinding("ecc_dbe", "4"), OpenFinding("ecc_dbe", "5"))
    assert [f.gpu for f in found] == ["2", "4"]
    assert len(server.asked) == 1


def test_only_the_nodes_in_doubt_are_asked_for_by_every_label_that_may_name_them():
    server = whole()
    unreported(server, DBE_2)
    (asked,) = server.asked
    assert 'Hostname=~"gpu-1"' in asked
    assert 'instance=~"(gpu-1)(:[^:]*)?"' in asked
    assert "gpu-2" not in asked


@pytest.mark.parametrize(
    ("label", "value", "is_its"),
    [
        pytest.param("Hostname", "a.b-1", True, id="its name"),
        pytest.param("node", "a.b-1", True, id="its name by another label"),
        pytest.param("instance", "a.b-1:9400", True, id="its address with a port"),
        pytest.param("instance", "a.b-1", True, id="its address"),
        pytest.param("instance", "a.b-12:9400", False, id="a longer name"),
        pytest.param("Hostname", "axb-1", False, id="a dot is a dot"),
        pytest.param("Hostname", "a.b-1:9400", False, id="a port belongs to an address"),
    ],
)
def test_a_node_is_found_as_everywhere_else(label, value, is_its):
    fleet = Fleet({"a.b-1": make_node("a.b-1")}, NodeNames(POLICY.names, frozenset({"a.b-1"})))
    server = Prometheus()
    times = np.array([MOMENT - 5000], np.int64)
    server.store.add({"__name__": DBE, label: value, "gpu": "2"}, times, np.array([0.0]))
    found, _ = read_unreported(
        server,
        fleet,
        POLICY,
        at=NOW,
        readings=(),
        coverage={s: replace(c, nodes_seen=frozenset({"a.b-1"})) for s, c in SEEN.items()},
        open_findings={"a.b-1": [DBE_2]},
    )
    assert (found == {}) is is_its


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([f"n-{i}" for i in range(MOST_NODES + 1)], id="too many to name"),
        pytest.param(["n-1", 'n-2"} or vector(1)'], id="a name that is none of Kubernetes'"),
    ],
)
def test_else_all_nodes_are_asked_for(nodes):
    rule = next(s for s in POLICY.signals if s.name == "ecc_dbe")
    assert reporting_query(rule, POLICY.names, nodes) == reporting_query(rule, POLICY.names)


def test_what_policy_no_longer_has_or_of_a_workload_is_not_missed():
    gone = OpenFinding("a_signal_of_before", "2")
    workload = next(s.name for s in POLICY.signals if s.input == "workload" and not s.is_kubernetes)
    dark = {workload: Coverage(workload, frozenset(), 3)}
    assert unreported(Prometheus(), gone, OpenFinding(workload), coverage=dark) == ()
