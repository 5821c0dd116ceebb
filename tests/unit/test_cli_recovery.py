"""What an engineer types to find and mend drift, and to take things back."""

from __future__ import annotations

import re

import pytest
import yaml

from breakfix.act.marks import CASE, TAINT
from breakfix.flow.by_hand import open_by_hand
from breakfix.model import CaseEnd, FailureClass, Taint
from breakfix.ports import NodePatch
from breakfix.settings import load_settings
from breakfix.wiring import build_cluster, build_services
from tests.contract.ledger_builders import connect
from tests.unit import test_cli_commands as commands
from tests.unit.test_cli_commands import read

#: The fixtures of those tests: a way to type commands, a ledger, a fleet.
fleet, run, on_fleet = commands.fleet, commands.run, commands.on_fleet
database, ledger = commands.database, commands.ledger

NODE = "r1-n02"


@pytest.fixture
def cluster(run, on_fleet, ledger):
    """The fleet, owned by this test's ledger."""
    assert run("ledger", "claim", "-r", "another test was before")[0] == 0
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
    head = ledger.head()
    code, out, err = run("reconcile", "--dry-run")
    assert (code, err) == (0, "")
    assert all(word in out for word in (NODE, "old-1", "marks_of_nobody", "would be done"))
    assert ledger.cases() == ()
    assert ledger.head() == head


def test_a_reconciliation_mends_what_the_dry_run_showed(run, orphan, ledger):
    shown = read(run("reconcile", "--dry-run", "-o", "json"))
    done = read(run("reconcile", "-o", "json"))
    assert shown["drift"] == done["drift"]
    (case,) = ledger.cases()
    assert done["escalated"] == [case.id]
    assert (case.node, case.end) == (NODE, CaseEnd.ESCALATED)
    assert read(run("reconcile", "--dry-run", "-o", "json"))["drift"] == []
    assert orphan.node(NODE).annotations[CASE] == case.id


@pytest.fixture
def drained(run, cluster, ledger):
    """A node that was drained by hand, and its case."""
    said = read(run("drain", NODE, "--force", "--delete-emptydir-data", "-o", "json"))
    (report,) = said["nodes"]
    assert report["is_done"], report
    yield report["case_id"]
    for case in ledger.cases(open_only=True):
        run("case", "abort", case.id)
    assert not cluster.node(NODE).is_unschedulable


@pytest.fixture
def quarantined(ledger, cluster):
    """A node that is cordoned and nothing more, and its case."""
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    try:
        case = open_by_hand(services, NODE, FailureClass.MANUAL, requester="cli:x", reason="t")
        yield case.id
    finally:
        services.book.close()
        services.cluster.close()


def test_an_undo_shows_first_and_does_it_only_when_told_to_and_why(
    run, cluster, ledger, quarantined
):
    shown = read(run("undo", "--since", "1h", "-o", "json"))
    assert shown["is_preview"] is True
    assert [(u["node"], u["is_undone"]) for u in shown["cases"]] == [(NODE, True)]
    assert cluster.node(NODE).is_unschedulable
    code, _, err = run("undo", "--since", "1h", "--yes")
    assert (code, "wants a reason" in err) == (3, True)
    code, out, _ = run("undo", "--since", "1h", "--yes", "-r", "a lie")
    assert (code, "not halted" in out) == (0, True)
    assert not cluster.node(NODE).is_unschedulable
    assert ledger.case(quarantined).end is CaseEnd.ABORTED


def test_a_drained_node_is_not_undone_and_the_table_says_why(run, cluster, ledger, drained):
    code, out, _ = run("undo", "--since", "1h", "--yes", "-r", "a lie")
    assert code == 0
    assert "its drain has ended" in out
    assert cluster.node(NODE).is_unschedulable


def test_a_drained_node_that_is_wanted_back_is_validated_first(run, cluster, ledger, drained):
    said = read(run("case", "return", drained, "-r", "fan swapped", "-o", "json"))
    assert "goes on with the validation" in said["text"]
    assert said["case"]["state"] == "validating"
    assert cluster.node(NODE).is_unschedulable
    code, _, err = run("case", "return", drained, "--force", "-r", "now")
    assert (code, "policy maps your role" in err) == (3, True)
    run("case", "abort", drained)
    patch(cluster, is_unschedulable=False)
    read(run("reconcile", "-o", "json"))


def test_a_login_forces_no_return_and_an_approvers_own_role_does(
    run, cluster, ledger, drained, tmp_path, monkeypatch
):
    path = tmp_path / "approvers.yaml"
    monkeypatch.setenv("BREAKFIX_POLICY", str(path))
    rules = {"approvers": ["ann"]}
    path.write_text(yaml.safe_dump({"version": "t", "approvals": rules}))
    for name in ("USER", "LOGNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "ann")
    code, _, err = run("case", "return", drained, "--force", "-r", "now")
    assert (code, "approvals.ledger_roles" in err) == (3, True)
    assert cluster.node(NODE).is_unschedulable
    rules["ledger_roles"] = {ledger.role: "ann"}
    path.write_text(yaml.safe_dump({"version": "t", "approvals": rules}))
    monkeypatch.setenv("SUDO_USER", "mallory")
    said = read(run("case", "return", drained, "--force", "-r", "now", "-o", "json"))
    assert said["case"]["state"] == "returning"
    assert not cluster.node(NODE).is_unschedulable
    entry = next(e for e in ledger.audit_entries() if e.event == "case.return_forced")
    assert entry.actor == "cli:ann"


def test_a_release_is_the_end_of_a_hold(run, ledger, drained):
    run("case", "hold", drained)
    assert ledger.case(drained).held_by
    run("case", "release", drained)
    assert not ledger.case(drained).held_by


@pytest.mark.parametrize("text", ["yesterday", "2026-01-31T12:00:00"])
def test_a_since_that_says_no_moment_is_a_mistake_of_usage(run, on_fleet, ledger, text):
    code, _, err = run("undo", "--since", text)
    assert code == 2
    assert text in err


def cut_off_the_tail(url, *, after):
    """As somebody with the database's own rights may: the entries, and the head with them."""
    with connect(url) as connection:
        connection.execute("ALTER TABLE breakfix.audit DISABLE TRIGGER USER")
        connection.execute("DELETE FROM breakfix.audit WHERE seq > %s", [after])
        connection.execute(
            "UPDATE breakfix.audit_heads SET seq=%s,"
            " hash=(SELECT hash FROM breakfix.audit WHERE seq=%s)",
            [after, after],
        )


def test_a_tail_that_was_cut_off_is_found_by_the_head_that_was_published(
    run, cluster, ledger, database, quarantined
):
    said = run("metrics")[1]
    values = dict(re.findall(r"^breakfix_audit_head_(\w+) (\S+)$", said, re.MULTILINE))
    seq, prefix = int(float(values["seq"])), int(float(values["hash_prefix"]))
    head = f"{seq}:{prefix:012x}"
    assert run("audit", "verify", "--head", head)[0] == 0
    cut_off_the_tail(database, after=seq - 2)
    assert ledger.verify_audit() == (seq - 2, "")  # by itself it looks whole
    code, _, err = run("audit", "verify")  # the cluster remembers
    assert (code, "older copy" in err) == (5, True)
    code, _, err = run("audit", "verify", "--head", head)  # so does Prometheus
    assert (code, "older copy" in err) == (5, True)
    code, _, err = run("case", "abort", quarantined)
    assert (code, "does not have audit entry" in err) == (3, True)
    assert cluster.node(NODE).is_unschedulable
    assert "breakfix_ledger_owns_cluster 0.0" in run("metrics")[1]


@pytest.mark.parametrize("head", ["", "12", "x:abcdef12", "12:zz", "12:abc"])
def test_a_head_that_is_none_is_a_mistake_of_usage(run, cluster, head):
    code, _, err = run("audit", "verify", "--head", head or ":")
    assert code == 2
    assert "SEQ:HASH" in err
