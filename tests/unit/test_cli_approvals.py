"""Open questions and answers to them, as an approver types them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import yaml

from breakfix.cli.actor import requester
from breakfix.model import Case, Decision, Impact, NodeState, Purpose, Tier
from breakfix.settings import load_settings
from breakfix.wiring import build_services
from tests.contract.ledger_builders import an_intent, connect, limits
from tests.unit import test_cli_commands as commands
from tests.unit.test_cli_commands import is_one_line, read

run, ledger, database = commands.run, commands.ledger, commands.database


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    """A laptop: no kubeconfig, no Prometheus, no Airflow; only the ledger."""
    monkeypatch.setenv("BREAKFIX_CLUSTER_NAME", "test")
    for name in ("BREAKFIX_KUBECONFIG", "BREAKFIX_PROMETHEUS_URL", "BREAKFIX_AIRFLOW_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def policy(tmp_path, monkeypatch, ledger):
    """`policy(ann=True)`: the ledger's role of these tests is ann's own."""

    def write(*, ann=True, **rules):
        roles = {ledger.role: "ann"} if ann else {}
        rules = {"approvers": ["ann", "bob"], "ledger_roles": roles, **rules}
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump({"version": "t", "approvals": rules}))
        monkeypatch.setenv("BREAKFIX_POLICY", str(path))

    write()
    return write


def asked(ledger, node="n1", *, purpose=Purpose.REPAIR, pool="train", needed=1):
    now = datetime.now(UTC) - timedelta(minutes=1)
    impact = Impact(2, 24, 16, ("Job ml/llm (3 pods, 24 GPUs on 3 nodes)",), 24)
    intent = replace(an_intent(node, rack=node, pool=pool), impact=impact, tier=Tier.ONE)
    case = ledger.admit(intent, limits(rack_name=node), requester="sweep", now=now)
    assert isinstance(case, Case)
    if purpose is Purpose.RETURN:
        for state in (NodeState.REPAIRING, NodeState.VALIDATING):
            case = ledger.move(case.id, 1, state, actor="a", reason="r", now=now)
    until = now + timedelta(hours=1)
    ledger.ask(
        case.id, 1, purpose, plan_hash=case.plan_hash, expires_at=until, now=now, needed=needed
    )
    return case


def last(ledger, case):
    return ledger.approvals(case.id)[-1]


def test_what_waits_is_listed_with_its_tier_its_plan_and_its_cost(run, ledger, policy):
    case = asked(ledger, needed=2)
    said = read(run("approvals", "-o", "json"))
    (question,) = said["questions"]
    assert (question["tier"], question["needed"], question["yes"]) == ("two", 2, [])
    assert (question["case"], question["plan_hash"]) == (case.id, case.plan_hash)
    assert (question["cost"]["gpus_stopped"], question["cost"]["gang_gpus"]) == (24, 24)
    _, out, _ = run("approvals")
    for word in (case.id, "two", case.plan_hash[:12], "24 GPUs stop", "Job ml/llm"):
        assert word in out.replace("\n", " "), word
    assert "nothing" in run("approvals", "--pool", "other")[1]


def test_a_yes_by_ones_own_role_allows(run, ledger, policy):
    case = asked(ledger)
    code, out, err = run("approve", case.id, "--yes", "--plan", case.plan_hash[:12])
    assert (code, err) == (0, "")
    assert "allowed by ann" in out
    assert (last(ledger, case).decision, last(ledger, case).channel) == (Decision.ALLOWED, "cli")


def test_one_of_two_keeps_it_open_and_is_shown(run, ledger, policy):
    case = asked(ledger, needed=2)
    code, out, _ = run("approve", case.id, "--yes", "--plan", case.plan_hash, "--note", "go")
    assert (code, "yes so far: ann" in out) == (0, True)
    (question,) = read(run("approve", case.id, "-o", "json"))["questions"]
    assert [(y["approver"], y["note"]) for y in question["yes"]] == [("ann", "go")]
    code, _, err = run("approve", case.id, "--yes", "--plan", case.plan_hash)
    assert (code, is_one_line(err)) == (3, True)
    assert "said yes already" in err


def test_a_login_is_no_identity(run, ledger, policy, monkeypatch):
    policy(ann=False)
    for name in ("USER", "LOGNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "ann")
    case = asked(ledger)
    code, _, err = run("approve", case.id, "--yes", "--plan", case.plan_hash)
    assert (code, is_one_line(err)) == (3, True)
    assert "approvals.ledger_roles" in err
    assert last(ledger, case).decision is Decision.PENDING
    (given,) = ledger.answers(case.id)
    assert given.answer.approver == f"role:{ledger.role}"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(["--yes"], 2, "a yes is for one plan", id="a yes for no plan"),
        pytest.param(["--yes", "--plan", "abc"], 2, "at least 8", id="too short a name"),
        pytest.param(
            ["--yes", "--plan", "0123456789ab"], 3, "for another plan", id="an older plan"
        ),
    ],
)
def test_a_yes_names_its_plan(run, ledger, policy, words, code, says):
    case = asked(ledger)
    got, _, err = run("approve", case.id, *words)
    assert (got, says in err, is_one_line(err)) == (code, True, True)
    assert last(ledger, case).decision is Decision.PENDING


def test_a_no_needs_no_plan_and_takes_a_yes_back(run, ledger, policy):
    case = asked(ledger)
    run("approve", case.id, "--yes", "--plan", case.plan_hash)
    code, out, _ = run("approve", case.id, "--no", "--note", "not now")
    assert (code, "refused by ann" in out) == (0, True)
    assert last(ledger, case).decision is Decision.REFUSED
    code, _, err = run("approve", case.id, "--yes", "--plan", case.plan_hash)
    assert (code, "waits for no answer" in err) == (3, True)


def test_many_returns_are_looked_at_first_and_answered_each_by_itself(run, ledger, policy):
    mine = [asked(ledger, f"n{i}", purpose=Purpose.RETURN) for i in range(3)]
    other = asked(ledger, "m1", purpose=Purpose.RETURN, pool="other")
    repair = asked(ledger, "r1")
    words = ("approve", "--returns", "--pool", "train")
    seen = read(run(*words, "-o", "json"))
    assert [q["node"] for q in seen["questions"]] == ["n0", "n1", "n2"]
    code, _, err = run(*words, "--yes")
    assert (code, "look at them first" in err) == (2, True)
    given = read(run(*words, "--yes", "--these", seen["these"], "-o", "json"))
    assert [(g["node"], g["decision"]) for g in given] == [(f"n{i}", "allowed") for i in range(3)]
    for case in mine:
        assert last(ledger, case).decision is Decision.ALLOWED
        assert ledger.answers(case.id)[0].answer.plan_hash == case.plan_hash
    assert last(ledger, other).decision is Decision.PENDING
    assert last(ledger, repair).decision is Decision.PENDING


def test_a_list_that_changed_since_it_was_seen_is_not_answered(run, ledger, policy):
    first = asked(ledger, "n1", purpose=Purpose.RETURN)
    _, out, _ = run("approve", "--returns")
    token = out.split("--these ")[1].split()[0]
    asked(ledger, "n2", purpose=Purpose.RETURN)
    code, _, err = run("approve", "--returns", "--yes", "--these", token)
    assert (code, "look again" in err) == (3, True)
    assert last(ledger, first).decision is Decision.PENDING


def test_it_is_either_a_case_or_all_returns(run, ledger, policy):
    assert run("approve")[0] == 2
    assert run("approve", "x", "--returns")[0] == 2
    assert json.loads(run("approve", "--returns", "-o", "json")[1])["questions"] == []


@pytest.fixture
def own_role(ledger, database, monkeypatch):
    """A person's own role, made as docs/security.md says; the command line connects as it."""
    name = f"own_{uuid4().hex[:8]}"
    with connect(database) as connection:
        service = connection.execute("SELECT session_user").fetchone()[0]
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'own' IN ROLE {service}")
        parts = urlsplit(database)
        own = parts._replace(netloc=f"{name}:own@{parts.netloc.rpartition('@')[2]}")
        monkeypatch.setenv("BREAKFIX_DATABASE_URL", own.geturl())
        yield name
        connection.execute(f"DROP ROLE {name}")


def test_a_person_answers_by_a_database_role_of_their_own(run, ledger, policy, own_role):
    policy(ledger_roles={own_role: "bob"})
    case = asked(ledger)
    code, _, err = run("approve", case.id, "--yes", "--plan", case.plan_hash)
    assert (code, err) == (0, "")
    (given,) = ledger.answers(case.id)
    assert (given.answer.approver, given.role) == ("bob", own_role)
    assert last(ledger, case).approver == "bob"


@pytest.mark.parametrize(
    ("is_own", "who"),
    [
        pytest.param(True, "cli:ann", id="their own role"),
        pytest.param(False, "cli:mallory", id="a role that is nobody's own: the login"),
    ],
)
def test_who_asks_for_a_drain_is_who_may_not_approve_it(ledger, policy, monkeypatch, is_own, who):
    monkeypatch.setenv("SUDO_USER", "mallory")
    policy(ann=is_own)
    services = build_services(
        load_settings(), needs_ledger=True, needs_metrics=False, needs_cluster=False
    )
    try:
        assert requester(services) == who
    finally:
        services.ledger.close()
