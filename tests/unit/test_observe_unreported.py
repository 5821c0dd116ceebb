"""What spoke, is silent and is not reported has not ended: neither by one GPU's loss of a field nor
by a whole fleet's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import pytest

from breakfix.model import Coverage, OpenFinding, Reading, SignalKind
from breakfix.observe.fleet import Fleet
from breakfix.observe.unreported import read_unreported
from tests.fakes_cluster import make_node
from tests.observations import NOW, POLICY
from tests.unit.test_observe_coverage import DBE, FLEET, XID, Prometheus

SEEN = {s.name: Coverage(s.name, frozenset(FLEET.nodes), len(FLEET.nodes)) for s in POLICY.signals}
DBE_2 = OpenFinding("ecc_dbe", "2")
XID_2 = OpenFinding("xid_last", "2")
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


def test_one_query_a_signal_whatever_is_missed():
    server = Prometheus().has("gpu-1", "013567")
    found = unreported(server, DBE_2, OpenFinding("ecc_dbe", "4"), OpenFinding("ecc_dbe", "5"))
    assert [f.gpu for f in found] == ["2", "4"]
    assert len(server.asked) == 1


def test_what_policy_no_longer_has_or_of_a_workload_is_not_missed():
    gone = OpenFinding("a_signal_of_before", "2")
    workload = next(s.name for s in POLICY.signals if s.input == "workload")
    assert unreported(Prometheus(), gone, OpenFinding(workload)) == ()
