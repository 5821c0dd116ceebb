"""The ledger is lost, mixed up or set back: nothing acts on the cluster until a person says so."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg
import pytest

from breakfix.adapters.ledger import PostgresLedger, migrate
from breakfix.errors import LedgerError, Refused
from breakfix.flow.case import run_stage
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.flow.sweep import sweep
from breakfix.model import CaseEnd, Purpose, RefusalReason
from tests.flow.world import FlowWorld


@pytest.fixture
def ledger(postgres_url):
    migrate(postgres_url)
    ledger = PostgresLedger(postgres_url, "test")
    yield ledger
    ledger.close()


@pytest.fixture
def second_url(private_postgres):
    name = private_postgres.create_database()
    yield private_postgres.url(name)
    private_postgres.drop_database(name)


def waiting_world(ledger):
    world = FlowWorld(ledger=ledger)
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    return world


def refuses_to_act(world, services, says):
    writes = len(world.cluster.writes())
    for act in (lambda: sweep(services), lambda: reconcile(services, world.road)):
        with pytest.raises(Refused, match=says) as error:
            act()
        assert error.value.reason is RefusalReason.UNOWNED_CLUSTER
    assert len(world.cluster.writes()) == writes


def test_the_whole_road_on_postgres_ends_well_and_leaves_a_sound_audit(ledger):
    """A case goes its whole road with its records on Postgres.

    Lost: nothing; one reboot, the node is back, and the audit chain verifies.
    """
    world = FlowWorld(ledger=ledger)
    world.cluster.add_pod("web-1", "a1")
    world.break_node("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.ran["reboot"] == 1
    assert world.is_audit_sound()


def test_a_second_empty_database_does_nothing_to_the_cluster(ledger, second_url):
    """Somebody starts us with a second, empty database.

    Lost: nothing; neither sweep nor reconciler writes to the cluster, and the first one keeps it.
    """
    world = waiting_world(ledger)
    world.break_node("b1")
    migrate(second_url)
    other = PostgresLedger(second_url, "test")
    refuses_to_act(world, replace(world.services, ledger=other), "owns this cluster")
    assert other.cases() == ()
    other.close()


def test_the_same_database_under_another_clusters_name_does_nothing(ledger, postgres_url):
    """The right database is used under another cluster's name.

    Lost: nothing; it is refused before anything is written.
    """
    world = waiting_world(ledger)
    other = PostgresLedger(postgres_url, "west")
    refuses_to_act(world, replace(world.services, ledger=other), "this cluster is 'test'")
    other.close()


def copy_of(url, second_url):
    """A backup of the database as it is now, restored into another one."""
    libpq = [u.replace("postgresql+psycopg://", "postgresql://") for u in (url, second_url)]
    assert urlsplit(libpq[0]).scheme == "postgresql"
    dump = subprocess.run(
        ["pg_dump", "--no-owner", libpq[0]], check=True, capture_output=True, timeout=60
    )
    with psycopg.connect(libpq[1]) as connection:
        assert connection.info.dbname != ""
    subprocess.run(
        ["psql", "-q", "-v", "ON_ERROR_STOP=1", libpq[1]],
        input=dump.stdout,
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_a_restored_older_database_does_nothing(ledger, postgres_url, second_url):
    """The ledger is set back to a backup of before the reboot.

    Lost: nothing; the cluster knows a later entry, so nobody acts and nothing is rebooted again.
    """
    world = waiting_world(ledger)
    copy_of(postgres_url, second_url)
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.drive(world.at_stage(Stage.CHECK_SIGNALS))
    restored = PostgresLedger(second_url, "test")
    services = replace(world.services, ledger=restored)
    refuses_to_act(world, services, "restored from an older backup")
    case = restored.cases()[0]
    result = run_stage(services, Stage.BEGIN, case.id, case.fence)
    assert result.to is Stage.SETTLE_RUN
    assert world.ran["reboot"] == 1
    restored.close()


def test_a_cluster_whose_owner_mark_was_removed_is_not_claimed_by_a_ledger_with_history(ledger):
    """Somebody deletes the ConfigMap that names the cluster's ledger.

    Lost: nothing; a ledger with cases does not claim the cluster by itself.
    """
    world = waiting_world(ledger)
    del world.cluster.config_maps["breakfix", "breakfix-ledger"]
    refuses_to_act(world, world.services, "is this the right cluster")


def test_while_the_database_is_away_nothing_acts_and_then_it_goes_on():
    """The database is away in the middle of a repair.

    Lost: nothing; nothing acts meanwhile, and the case goes on to its end with one reboot.
    """
    world = FlowWorld()
    world.break_node("a1")
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    case, writes = world.case(), len(world.cluster.writes())
    world.ledger.is_down = True
    for act in (
        lambda: sweep(world.services),
        lambda: reconcile(world.services, world.road),
        lambda: run_stage(world.services, Stage.REBOOT_NODE, case.id, case.fence),
    ):
        with pytest.raises(LedgerError):
            act()
    assert len(world.cluster.writes()) == writes
    world.ledger.is_down = False
    world.drive(world.ended())
    assert (world.case().end, world.ran["reboot"]) == (CaseEnd.RETURNED, 1)
