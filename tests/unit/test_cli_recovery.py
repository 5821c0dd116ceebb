"""What an engineer types to find and mend drift, and to take things back."""

from __future__ import annotations

import pytest

from breakfix.act.marks import CASE, TAINT
from breakfix.model import CaseEnd, Taint
from breakfix.ports import NodePatch
from breakfix.settings import load_settings
from breakfix.wiring import build_cluster
from tests.unit import test_cli_commands as commands
from tests.unit.test_cli_commands import read

#: The fixtures of those tests: a way to type commands, a ledger, a fleet.
fleet, run, on_fleet = commands.fleet, commands.run, commands.on_fleet
database, ledger = commands.database, commands.ledger

NODE = "r1-n02"


@pytest.fixture
def cluster(on_fleet):
    cluster = build_cluster(load_settings())
    yield cluster
    cluster.close()


def patch(cluster, **changes):
    node = cluster.node(NODE)
    cluster.patch_node(NODE, node.resource_version, NodePatch(**changes))


@pytest.fixture
def orphan(cluster):
    """A node that a ledger of before left cordoned and tainted."""
    patch(
        cluster,
        is_unschedulable=True,
        taints=(Taint(TAINT, "NoSchedule", "gpu_off_bus"),),
        annotations={CASE: "old-1"},
    )
    yield cluster
    patch(cluster, is_unschedulable=False, taints=(), annotations={CASE: None})


def test_a_dry_reconciliation_shows_a_line_for_each_drift_and_changes_nothing(run, orphan, ledger):
    code, out, err = run("reconcile", "--dry-run")
    assert (code, err) == (0, "")
    assert all(word in out for word in (NODE, "old-1", "marks_of_nobody", "would be done"))
    assert ledger.cases() == ()
    assert ledger.head()[0] == 0


def test_a_reconciliation_mends_what_the_dry_run_showed(run, orphan, ledger):
    shown = read(run("reconcile", "--dry-run", "-o", "json"))
    done = read(run("reconcile", "-o", "json"))
    assert shown["drift"] == done["drift"]
    (case,) = ledger.cases()
    assert done["escalated"] == [case.id]
    assert (case.node, case.end) == (NODE, CaseEnd.ESCALATED)
    assert read(run("reconcile", "--dry-run", "-o", "json"))["drift"] == []
    assert orphan.node(NODE).annotations[CASE] == case.id
