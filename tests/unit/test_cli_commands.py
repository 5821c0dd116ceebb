"""What an engineer types, and what the shell gets: exit codes, JSON, one line for every error."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest
import yaml

from breakfix import cli, wiring
from breakfix.adapters.ledger import PostgresLedger, migrate
from breakfix.brakes import BreakerRule
from breakfix.model import Action, CaseEnd, Scope, ScopeKind
from breakfix.resilience.breaker import Circuit, CircuitState
from simfleet.fleet import FleetConfig
from simfleet.inprocess import SimFleet
from tests.fakes_metrics import FakeMetrics

FLEET_SCOPE = Scope(ScopeKind.FLEET, "")
FLEET = FleetConfig.model_validate(
    {
        "speed": 50,
        "racks": [{"name": "r1", "pool": "p1", "sku": "h100", "nodes": 3}],
        "workloads": [{"name": "web", "pool": "p1", "replicas": 3, "gpus": 2}],
    }
)


@pytest.fixture(scope="module")
def fleet():
    with SimFleet(FLEET) as fleet:
        yield fleet


@pytest.fixture
def run(monkeypatch, capsys):
    """`run("judge", "-o", "json")` -> (exit code, stdout, stderr)."""

    opened = []

    class Ledger(PostgresLedger):
        """Closed here, as the end of the process does it."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            opened.append(self)

    monkeypatch.setattr(wiring, "PostgresLedger", Ledger)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["breakfix", *words])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as left:
            cli.main()
        while opened:
            opened.pop().close()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def on_fleet(fleet, tmp_path, monkeypatch):
    """The settings of the simulated fleet; its Prometheus knows nothing."""
    monkeypatch.setenv("BREAKFIX_KUBECONFIG", str(fleet.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.setenv("BREAKFIX_PROMETHEUS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BREAKFIX_CLUSTER_NAME", "test")
    monkeypatch.setattr(wiring, "_metrics", lambda *_: FakeMetrics())
    return fleet


@pytest.fixture
def database(postgres_url, monkeypatch):
    url = postgres_url.replace("postgresql+psycopg://", "postgresql://")
    monkeypatch.setenv("BREAKFIX_DATABASE_URL", url)
    return url


@pytest.fixture
def ledger(database):
    migrate(database)
    ledger = PostgresLedger(database, "test")
    yield ledger
    ledger.close()


def read(answer):
    code, out, err = answer
    assert (code, err) == (0, "")
    return json.loads(out)


def is_one_line(err):
    return err.startswith("breakfix: ") and err.count("\n") == 1 and "Traceback" not in err


# --------------------------------------------------------------------------- shapes


def test_judge_prints_the_whole_judgement(run, on_fleet):
    said = read(run("judge", "-o", "json"))
    assert {"at", "policy", "coverage", "nodes"} <= said.keys()
    assert said["policy"].keys() == {"version", "hash"}
    assert [n["node"] for n in said["nodes"]] == ["r1-n01", "r1-n02", "r1-n03"]
    wanted = {
        "node",
        "state",
        "failure_class",
        "confidence",
        "findings",
        "unknown",
        "open_findings",
        "recommended_action",
    }
    assert all(wanted <= n.keys() for n in said["nodes"])


def test_judge_of_one_node_and_of_the_past(run, on_fleet):
    said = read(run("judge", "--node", "r1-n02", "--at", "2026-01-31T12:00:00Z", "-o", "json"))
    assert [n["node"] for n in said["nodes"]] == ["r1-n02"]
    assert said["at"].startswith("2026-01-31T12:00:00")


def test_plan_prints_intents_refusals_and_its_hash(run, on_fleet):
    said = read(run("plan", "-o", "json"))
    assert {"at", "hash", "policy", "intents", "refusals", "incidents"} <= said.keys()


def test_a_dry_drain_prints_exactly_the_pods_and_what_becomes_of_them(run, on_fleet):
    code, out, err = run("drain", "r1-n01", "r1-n02", "--dry-run", "-o", "json")
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert said.keys() == {"nodes"}
    assert [n["node"] for n in said["nodes"]] == ["r1-n01", "r1-n02"]
    keys = {"namespace", "name", "action", "reason", "order", "ladder"}
    for node in said["nodes"]:
        assert node.keys() == {"node", "pods"}
        assert all(p.keys() == keys for p in node["pods"])
    actions = {p["action"] for n in said["nodes"] for p in n["pods"]}
    assert {"evict", "skip"} >= actions
    assert "skip" in actions


@pytest.mark.parametrize(
    "words",
    [
        ("judge",),
        ("plan",),
        ("policy", "show"),
        ("policy", "check"),
        ("drain", "r1-n01", "--dry-run"),
    ],
    ids=" ".join,
)
def test_tables_for_people(run, on_fleet, words):
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.strip()


def test_the_policy_in_force_with_its_hash(run):
    said = read(run("policy", "show", "-o", "json"))
    assert {"hash", "version", "signals", "classes", "limits"} <= said.keys()
    assert read(run("policy", "check", "-o", "json"))["hash"] == said["hash"]


# --------------------------------------------------------------------------- with a ledger


def test_a_life_of_a_drain_by_hand(run, on_fleet, ledger, tmp_path, monkeypatch):
    overlay = tmp_path / "policy.yaml"
    overlay.write_text(yaml.safe_dump({"limits": {"out": {"fleet": {"share": 0.5}}}}))
    monkeypatch.setenv("BREAKFIX_POLICY", str(overlay))
    (drained,) = read(run("drain", "r1-n01", "--reason", "test", "-o", "json"))["nodes"]
    assert (drained["node"], drained["is_done"], drained["left"]) == ("r1-n01", True, 0)
    code, out, _ = run("drain", "r1-n02", "-o", "json")
    assert (code, "fleet_share" in out) == (3, True)
    (case,) = read(run("case", "list", "-o", "json"))
    assert (case["node"], case["action"], case["is_open"]) == ("r1-n01", Action.DRAIN_ONLY, True)
    shown = read(run("case", "show", case["id"], "-o", "json"))
    assert shown.keys() == {"case", "steps", "approvals", "answers", "why", "labels"}
    assert read(run("case", "hold", case["id"], "-o", "json"))["case"]["held_by"]
    assert not read(run("case", "unhold", case["id"], "-o", "json"))["case"]["held_by"]
    assert read(run("case", "hold", case["id"], "-o", "json"))["case"]["held_by"]
    resumed = read(run("case", "resume", case["id"], "-r", "go on", "-o", "json"))
    assert not resumed["case"]["held_by"]
    assert "next reconciliation" in resumed["text"]
    assert "is not held" in read(run("case", "resume", case["id"], "-o", "json"))["text"]
    assert run("case", "show", case["id"])[0] == 0
    aborted = read(run("case", "abort", case["id"], "-o", "json"))
    assert aborted["case"]["end"] == CaseEnd.ABORTED
    assert read(run("case", "list", "-o", "json")) == []
    assert len(read(run("case", "list", "--all", "-o", "json"))) == 1
    assert read(run("audit", "verify", "-o", "json"))["is_sound"]
    node = wiring.build_cluster(wiring.Settings()).node("r1-n01")
    assert not node.is_unschedulable
    assert not [k for k in node.annotations if k.startswith("breakfix.dev/")]


def test_halt_and_resume_say_the_level_before_and_after(run, ledger):
    told = read(run("halt", "-o", "json"))
    assert told == {"before": "none", "level": "disruption", "in_force": None}
    assert read(run("halt", "--level", "all", "-o", "json"))["before"] == "disruption"
    told = read(run("resume", "-o", "json"))
    assert told == {"before": "all", "level": "none", "in_force": None}


def test_the_audit_is_exported_as_json_lines(run, ledger, tmp_path):
    run("halt")
    run("resume")
    code, out, _ = run("audit", "export")
    assert (code, [json.loads(line)["seq"] for line in out.splitlines()]) == (0, [1, 2])
    file = tmp_path / "audit.jsonl"
    assert read(run("audit", "export", "-f", str(file), "-o", "json"))["entries"] == 2
    assert file.read_text() == out


def test_reviews_and_an_empty_queue(run, ledger):
    assert read(run("review", "list", "-o", "json")) == []
    assert run("review", "list")[0] == 0


def test_migrate_twice_is_no_error(run, database):
    first = read(run("ledger", "migrate", "-o", "json"))
    assert read(run("ledger", "migrate", "-o", "json")) == first


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("words", "settings", "code", "says"),
    [
        pytest.param(["judge"], {}, 2, "BREAKFIX_PROMETHEUS_URL is not set", id="no Prometheus"),
        pytest.param(["case", "list"], {}, 2, "BREAKFIX_DATABASE_URL is not set", id="no ledger"),
        pytest.param(
            ["judge"], {"PROMETHEUS_URL": "x:9"}, 2, "must start with http", id="a wrong URL"
        ),
        pytest.param(
            ["plan"], {"KUBECONFIG": "/nowhere"}, 2, "BREAKFIX_KUBECONFIG", id="a missing file"
        ),
        pytest.param(
            ["halt"], {"DATABASE_URL": "sqlite://"}, 2, "postgresql://", id="not Postgres"
        ),
        pytest.param(
            ["case", "list"],
            {"DATABASE_URL": "postgresql://u@127.0.0.1:1/x"},
            4,
            "breakfix: ",
            id="a database that is not there",
        ),
        pytest.param(["policy", "check", "/nowhere.yaml"], {}, 2, "cannot read", id="no overlay"),
        pytest.param(
            ["policy", "show"], {"POLICY": "/nowhere"}, 2, "BREAKFIX_POLICY", id="no policy"
        ),
    ],
)
def test_what_is_wrong_is_one_line(run, monkeypatch, words, settings, code, says):
    for name, value in settings.items():
        monkeypatch.setenv(f"BREAKFIX_{name}", value)
    left, out, err = run(*words)
    assert (left, out) == (code, "")
    assert is_one_line(err)
    assert says in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("limits: {headroom_gpus: -1}", "limits.headroom_gpus", id="a bad number"),
        pytest.param("limts: {}", "limts", id="a misspelt key"),
        pytest.param("[1, 2]", "must be a map", id="no map"),
        pytest.param("a: [", "not valid YAML", id="no YAML"),
        pytest.param("drain: {timeout: soon}", "no duration", id="no duration"),
    ],
)
def test_a_wrong_overlay_is_one_line(run, tmp_path, text, says):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(text)
    code, _, err = run("policy", "check", str(overlay))
    assert code == 2
    assert is_one_line(err)
    assert says in err


@pytest.mark.parametrize("text", ["", "{", "just text", "apiVersion: v1\nkind: Config\n"], ids=repr)
def test_a_broken_kubeconfig_is_one_line(run, monkeypatch, tmp_path, text):
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    monkeypatch.setenv("BREAKFIX_KUBECONFIG", str(file))
    monkeypatch.setenv("BREAKFIX_PROMETHEUS_URL", "http://127.0.0.1:1")
    code, _, err = run("judge")
    assert code == 2
    assert is_one_line(err)
    assert "BREAKFIX_KUBECONFIG" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["judge", "--at", "yesterday"], "--at 'yesterday'", id="no time"),
        pytest.param(["judge", "--at", "2026-01-31T12:00:00"], "no time zone", id="no zone"),
        pytest.param(["judge", "--node", "ghost"], "'ghost'", id="an unknown node to judge"),
        pytest.param(["drain", "ghost", "--dry-run"], "ghost", id="an unknown node to drain"),
    ],
)
def test_a_wrong_argument_is_one_line(run, on_fleet, words, says):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert is_one_line(err)
    assert says in err


@pytest.mark.parametrize("command", ["show", "hold", "unhold", "abort"])
def test_an_unknown_case_is_one_line(run, on_fleet, ledger, command):
    code, _, err = run("case", command, "20260101-nope")
    assert code == 2
    assert is_one_line(err)
    assert "no case '20260101-nope'" in err


def test_an_unreachable_cluster_is_exit_4(run, on_fleet, monkeypatch, tmp_path):
    text = (tmp_path / "kubeconfig").read_text()
    config = yaml.safe_load(text)
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    code, _, err = run("judge")
    assert code == 4
    assert is_one_line(err)


def test_a_cluster_of_another_ledger_is_exit_3(run, on_fleet, ledger, monkeypatch):
    monkeypatch.setenv("BREAKFIX_NAMESPACE", "other")
    cluster = wiring.build_cluster(wiring.Settings())
    cluster.ensure_namespace("other")
    cluster.create_config_map("other", "breakfix-ledger", {"ledger": "x", "cluster": "test"})
    code, _, err = run("drain", "r1-n03")
    assert code == 3
    assert is_one_line(err)
    assert "unowned_cluster" in err


def test_a_chain_that_was_tampered_with_is_exit_5(run, ledger, monkeypatch):
    monkeypatch.setattr(PostgresLedger, "verify_audit", lambda self: (3, "entry 4 was changed"))
    code, _, err = run("audit", "verify")
    assert code == 5
    assert is_one_line(err)
    assert "entry 4 was changed" in err


def test_a_bug_is_one_line_too(run, monkeypatch):
    monkeypatch.setattr("breakfix.cli.policy.load_settings", lambda: 1 / 0)
    code, _, err = run("policy", "show")
    assert code == 1
    assert is_one_line(err)
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("words", [["nonsense"], ["judge", "--nope"], ["drain"]], ids=" ".join)
def test_wrong_usage_is_exit_2(run, words):
    code, _, err = run(*words)
    assert code == 2
    assert "Traceback" not in err


def test_every_command_that_prints_takes_an_output_format():
    from typer.main import get_command

    def walk(command, path=()):
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*path, name))
        if not getattr(command, "commands", None):
            yield path, command

    lacking = [
        " ".join(path)
        for path, command in walk(get_command(cli.app))
        if not any("--output" in p.opts for p in command.params)
    ]
    assert lacking == []


# ------------------------------------------------------------------ circuits


def test_circuits_shows_what_is_left_alone_and_what_is_not(run, ledger, monkeypatch):
    monkeypatch.setenv("BREAKFIX_CLUSTER_NAME", "test")
    until = datetime(2099, 1, 1, tzinfo=UTC)
    ledger.circuits.save(
        "kubernetes", Circuit(CircuitState.OPEN, 5, until, until, "refused", 1), over=0
    )
    code, out, _ = run("circuits", "-o", "json")
    assert code == 0
    shown = {entry["name"]: entry["circuit"] for entry in json.loads(out)}
    assert set(shown) == set(wiring.DEPENDENCIES)
    assert (shown["kubernetes"]["state"], shown["prometheus"]["state"]) == ("open", "closed")
    code, out, _ = run("circuits")
    assert code == 0
    assert "2099-01-01 00:00:00 UTC" in out


def test_validate_says_what_is_not_proven_and_starts_nothing(run, on_fleet):
    code, out, _ = run("validate", "r1-n01", "-o", "json")
    told = json.loads(out)
    results = {c["check"]: c["result"] for c in told["checks"]}
    assert (code, told["is_passed"]) == (5, False)
    assert results == {
        "ready": "passed",
        "gpus": "passed",
        "operator": "not run",
        "signals": "cannot tell",
        "counters": "passed",
    }
    assert "r1-n01" in run("validate", "r1-n01")[1]


def test_validate_of_a_node_that_is_not_there_is_wrong_usage(run, on_fleet):
    code, out, complaint = run("validate", "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere" in complaint


# --------------------------------------------------------------------------- limits, emergency


@pytest.fixture
def two_people(tmp_path, monkeypatch):
    """An overlay in which bob approves; `two_people("bob")` sits down with a role of their own."""
    path = tmp_path / "policy.yaml"
    path.write_text(
        "approvals: {approvers: [bob], ledger_roles: {db_bob: bob}}\n"
        "limits: {windows: [{kind: blocked}]}\n"
    )
    monkeypatch.setenv("BREAKFIX_POLICY", str(path))

    def sit(name):
        monkeypatch.setenv("SUDO_USER", name)
        monkeypatch.setattr(PostgresLedger, "role", f"db_{name}")

    return sit


def test_limits_say_at_one_look_what_holds_and_what_is_used(run, on_fleet, tmp_path, monkeypatch):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "limits: {windows: [{kind: blocked, reason: customers}], out: {rack: {nodes: 0}}}"
    )
    monkeypatch.setenv("BREAKFIX_POLICY", str(path))
    code, out, _ = run("limits", "-o", "json")
    report = json.loads(out)
    assert code == 0
    assert "in a blocked window (daily 00:00-24:00 UTC: customers)" in report["holds"][0]
    assert any("1 racks are full: rack=r1" in line for line in report["holds"])
    fleet = next(s for s in report["scopes"] if s["scope"] == "fleet")
    assert (fleet["size"], fleet["out"], fleet["maximum"], fleet["is_full"]) == (3, 0, 1, False)
    assert report["modes"]["gpu_off_bus"] == "approve"
    assert report["headroom"][0]["must_stay_free"] == 0
    code, out, _ = run("limits")
    assert code == 0
    assert "in a blocked window" in out


def test_limits_without_a_ledger_never_say_that_nothing_holds(run, on_fleet):
    code, out, _ = run("limits", "-o", "json")
    report = json.loads(out)
    assert (code, report["breakers"]) == (0, [])
    assert "not known without BREAKFIX_DATABASE_URL" in report["holds"][-1]
    assert "nothing holds" not in run("limits")[1]


def test_an_emergency_takes_two_people_and_shows_in_every_plan(run, on_fleet, database, two_people):
    run("ledger", "migrate")
    start = ("emergency", "start", "--for", "2h", "--approver", "bob", "-r", "power")
    two_people("ann")
    assert run(*start, "--lift", "windows,fleet")[0] == 0
    code, _, complaint = run("emergency", "approve")
    assert (code, "approvals.ledger_roles" in complaint) == (3, True)
    assert json.loads(run("limits", "-o", "json")[1])["holds"][0] == "an emergency waits for bob"
    two_people("bob")
    assert run("emergency", "approve")[0] == 0
    report = json.loads(run("limits", "-o", "json")[1])
    assert report["emergency"]["state"] == "in force"
    assert report["emergency"]["lifts"] == ["fleet", "windows"]
    assert "EMERGENCY in force" in run("plan")[1]
    assert json.loads(run("plan", "-o", "json")[1])["emergency"]["approver"] == "bob"
    assert run("emergency", "end", "-r", "over")[1].startswith("ended: ")
    assert run("emergency", "end")[1].strip() == "there was no emergency"
    assert "over" in run("emergency", "show")[1]
    assert json.loads(run("limits", "-o", "json")[1])["emergency"] is None


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(("--lift", "everything"), 2, "there are windows", id="an unknown limit"),
        pytest.param(("--lift", ""), 2, "name what to lift", id="no limit"),
        pytest.param(("--lift", "fleet", "--for", "soon"), 2, "no duration", id="no time"),
        pytest.param(("--lift", "fleet", "--for", "9h"), 3, "lasts up to 240 min", id="too long"),
        pytest.param(
            ("--lift", "fleet", "--approver", "eve"), 3, "no approver", id="not by policy"
        ),
        pytest.param(("--lift", "fleet", "-r", ""), 2, "say why", id="no reason"),
    ],
)
def test_an_emergency_that_is_not_to_be(run, on_fleet, database, two_people, words, code, says):
    two_people("ann")
    asked = dict(zip(words[::2], words[1::2], strict=True))
    given = {"--for": "2h", "--approver": "bob", "-r": "power"} | asked
    found, _, complaint = run("emergency", "start", *(x for kv in given.items() for x in kv))
    assert (found, says in complaint) == (code, True), complaint


def test_a_breaker_is_shown_and_reset_by_name(run, on_fleet, database, monkeypatch):
    run("ledger", "migrate")
    monkeypatch.setenv("SUDO_USER", "ann")
    with closing(PostgresLedger(database, "test")) as ledger:
        now = datetime.now(UTC)
        rule = BreakerRule(FLEET_SCOPE, 1, 3600.0, 1800.0)
        sick = dict.fromkeys(("x1", "x2"), (FLEET_SCOPE,))
        ledger.watch_storms({FLEET_SCOPE: rule}, sick, frozenset(), actor="t", now=now)
    (row,) = json.loads(run("breaker", "show", "-o", "json")[1])
    assert (row["scope"], row["is_open"], row["who"]) == ("fleet", True, ["x1", "x2"])
    assert "the breaker of fleet is open" in run("limits")[1]
    assert run("breaker", "reset", "fleet")[0] == 2
    assert run("breaker", "reset", "shelf=1", "-r", "x")[0] == 2
    assert run("breaker", "reset", "rack=r1", "-r", "x")[0] == 4
    code, out, _ = run("breaker", "reset", "fleet", "-r", "a switch")
    assert (code, out.strip()) == (0, "breaker of fleet: closed by cli:ann")
    assert json.loads(run("breaker", "show", "-o", "json")[1]) == []
