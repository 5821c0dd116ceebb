from __future__ import annotations

import pytest

from breakfix.act.ownership import check_ownership, claim_by_hand, mark_head
from breakfix.errors import ClusterError, Refused
from breakfix.model import RefusalReason
from tests.fakes_cluster import FakeCluster
from tests.fakes_ledger import FakeLedger
from tests.unit.act_world import NOW, make_world

KEY = ("breakfix", "breakfix-ledger")


def check(cluster: FakeCluster, ledger: FakeLedger) -> None:
    check_ownership(cluster, ledger, "breakfix", now=NOW)


def refused(cluster: FakeCluster, ledger: FakeLedger) -> str:
    with pytest.raises(Refused) as caught:
        check(cluster, ledger)
    assert caught.value.reason is RefusalReason.UNOWNED_CLUSTER
    return str(caught.value)


def note(ledger: FakeLedger, count: int = 1) -> None:
    for _ in range(count):
        ledger.audit("something", "x", actor="t", detail={}, now=NOW)


def test_a_new_ledger_claims_a_cluster_that_nobody_owns():
    cluster, ledger = FakeCluster(), FakeLedger("test")
    check(cluster, ledger)
    check(cluster, ledger)
    assert cluster.config_maps[KEY]["ledger"] == "ledger-1"
    assert "breakfix" in cluster.namespaces
    assert [e.event for e in ledger.audit_entries()] == ["cluster.claimed"]


def test_an_empty_second_ledger_is_refused():
    cluster = FakeCluster()
    check(cluster, FakeLedger("test"))
    assert "owns this cluster" in refused(cluster, FakeLedger("test", ledger_id="ledger-2"))


def test_a_ledger_that_knows_the_cluster_by_another_name_is_refused():
    cluster = FakeCluster()
    check(cluster, FakeLedger("test"))
    assert "'test', not 'other'" in refused(cluster, FakeLedger("other"))


def test_a_ledger_with_cases_does_not_claim_another_cluster():
    world = make_world()
    assert "right cluster" in refused(FakeCluster(), world.ledger)


def test_of_two_that_claim_at_once_one_wins():
    cluster = FakeCluster()
    first, second = FakeLedger("test"), FakeLedger("test", ledger_id="ledger-2")
    cluster.before["create_config_map"] = lambda: check(cluster, second)
    refused(cluster, first)
    assert cluster.config_maps[KEY]["ledger"] == "ledger-2"


def test_a_restored_older_ledger_is_refused():
    cluster, ledger, restored = FakeCluster(), FakeLedger("test"), FakeLedger("test")
    check(cluster, ledger)
    note(ledger, 5)
    mark_head(cluster, ledger, "breakfix")
    note(restored, 3)
    assert "older backup" in refused(cluster, restored)


def test_a_restored_ledger_that_has_grown_past_the_mark_is_refused_too():
    cluster, ledger, restored = FakeCluster(), FakeLedger("test"), FakeLedger("test")
    check(cluster, ledger)
    note(ledger, 5)
    mark_head(cluster, ledger, "breakfix")
    note(restored, 30)
    assert "older backup" in refused(cluster, restored)


def test_the_mark_follows_the_ledger():
    cluster, ledger = FakeCluster(), FakeLedger("test")
    check(cluster, ledger)
    note(ledger, 30)
    check(cluster, ledger)
    assert int(cluster.config_maps[KEY]["audit_seq"]) == ledger.head()[0]


def test_a_mark_that_fails_fails_nothing():
    cluster, ledger = FakeCluster(), FakeLedger("test")
    check(cluster, ledger)
    cluster.fail("update_config_map")
    mark_head(cluster, ledger, "breakfix")


def test_a_mark_nobody_can_read_is_refused():
    cluster, ledger = FakeCluster(), FakeLedger("test")
    check(cluster, ledger)
    cluster.config_maps[KEY]["audit_seq"] = "-1"
    assert "audit_seq" in refused(cluster, ledger)


def test_a_cluster_that_cannot_be_read_is_not_owned():
    cluster = FakeCluster()
    cluster.fail("config_map")
    with pytest.raises(ClusterError):
        check(cluster, FakeLedger("test"))


def test_a_person_may_hand_the_cluster_to_another_ledger():
    cluster, second = FakeCluster(), FakeLedger("test", ledger_id="ledger-2")
    check(cluster, FakeLedger("test"))
    former = claim_by_hand(cluster, second, "breakfix", actor="cli:ann", reason="restored", now=NOW)
    assert former == "ledger-1"
    check(cluster, second)
    assert [e.event for e in second.audit_entries()] == ["cluster.taken_over"]
