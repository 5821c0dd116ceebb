"""`breakfix canary`: what a pipeline branches on, and what a person reads."""

from __future__ import annotations

import json
import sys

import pytest

from breakfix import cli
from breakfix.cli import canary as command
from breakfix.flow.services import Services
from breakfix.ports import QueryResult, Sample
from breakfix.settings import load_settings
from tests.fakes_cluster import FakeCluster
from tests.fakes_metrics import FakeMetrics
from tests.flow.world import Clock, Notifier, policy_with

SELECTORS = ("--canary", "driver=new", "--stable", "driver=old")


class Served(FakeMetrics):
    """vLLM on nodes: requests and errors by node, as instances of that name."""

    def __init__(self, requests, errors):
        super().__init__(default=self._answer)
        self.requests, self.errors = requests, errors

    def _answer(self, promql):
        if "http_requests_total" not in promql or 'status=~"[1-5][0-9]' in promql:
            return QueryResult(())
        if "code=" in promql:
            return QueryResult(())
        found = self.errors if 'status="5xx"' in promql else self.requests
        return QueryResult(
            tuple(Sample({"instance": f"{n}:8000"}, float(v)) for n, v in found.items())
        )


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(requests, errors, *words)` -> (exit code, stdout, stderr, the clock)."""

    def run(requests, errors, *words):
        cluster, clock = FakeCluster(), Clock()
        for name, driver in (("c1", "new"), ("c2", "new"), ("s1", "old"), ("s2", "old")):
            cluster.add_node(name, labels={"driver": driver})
        metrics = Served(requests, errors) if requests is not None else FakeMetrics()
        services = Services(metrics, cluster, policy_with(), load_settings(), clock, Notifier())
        monkeypatch.setattr(command, "build_services", lambda *_, **__: services)
        monkeypatch.setattr(sys, "argv", ["breakfix", "canary", *words])
        monkeypatch.setenv("COLUMNS", "250")
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err, clock

    return run


ALIKE = {"c1": 500, "c2": 500, "s1": 500, "s2": 500}


@pytest.mark.parametrize(
    ("requests", "errors", "code", "said"),
    [
        pytest.param(ALIKE, {}, 0, "proceed: all 4 checks passed on 1000 requests", id="alike"),
        pytest.param(ALIKE, {"c1": 40, "c2": 40}, 1, "roll_back: vllm error rate is", id="errors"),
        pytest.param({"s1": 500}, {}, 3, "continue: vllm error rate is not known", id="no canary"),
        pytest.param(None, {}, 3, "continue: nothing was seen", id="nothing at all"),
    ],
)
def test_the_exit_code_is_the_answer(run, requests, errors, code, said):
    left, out, err, _ = run(requests, errors, *SELECTORS)
    assert (left, err) == (code, "")
    assert said in out


def test_json_has_the_answer_the_checks_and_the_cohorts(run):
    code, out, _, _ = run(ALIKE, {}, *SELECTORS, "--minutes", "5", "-o", "json")
    said = json.loads(out)
    assert code == 0
    assert (said["advice"], said["window_s"]) == ("proceed", 300)
    assert (said["canary"], said["canary_size"], said["stable_size"]) == ("driver=new", 2, 2)
    wanted = {"name", "canary", "stable", "limit", "requests", "p_value", "outcome", "note"}
    assert all(wanted <= c.keys() for c in said["checks"])


def test_a_node_that_both_select_is_of_the_canary(run):
    words = ("--canary", "driver=new", "--stable", "driver")
    said = json.loads(run(ALIKE, {}, *words, "-o", "json")[1])
    assert (said["canary_size"], said["stable_size"]) == (2, 2)


def test_watch_looks_until_the_deadline_and_no_longer(run):
    code, out, _, clock = run(None, {}, *SELECTORS, "--watch")
    rules = policy_with().canary
    assert code == 3
    assert out.count("continue: ") == rules.deadline_s / rules.window_s + 1
    assert clock.monotonic() == rules.deadline_s
    assert "a person has to decide" in out


def test_watch_ends_with_the_first_answer(run):
    code, _, _, clock = run(ALIKE, {"c1": 500}, *SELECTORS, "--watch")
    assert (code, clock.monotonic()) == (1, 0.0)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="no selector"),
        pytest.param(("--canary", "a=b"), id="no stable"),
        pytest.param(("--canary", "a=b", "--stable", ""), id="an empty selector"),
        pytest.param(("--canary", "a in (b)", "--stable", "c=d"), id="a term not understood"),
        pytest.param(("--canary", "x=1,a in (b)", "--stable", "c=d"), id="a later term"),
        pytest.param(("--canary", "pods:ns/a in (b)", "--stable", "c=d"), id="a term of pods"),
        pytest.param(("--canary", "pods:/a=b", "--stable", "c=d"), id="pods without a namespace"),
        pytest.param(("--canary", 'a="b"} or up{', "--stable", "c=d"), id="more than matchers"),
        pytest.param((*SELECTORS, "--minutes", "0"), id="no time"),
        pytest.param((*SELECTORS, "--minutes", "99999"), id="too long"),
    ],
)
def test_wrong_usage_is_exit_2_before_anything_is_connected(monkeypatch, capsys, words):
    monkeypatch.setattr(command, "build_services", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["breakfix", "canary", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err


def test_the_help_names_the_exit_codes(run):
    code, out, _, _ = run(ALIKE, {}, "--help")
    assert code == 0
    assert "0 proceed, 1 roll back, 3 continue, 2 usage" in " ".join(out.split())


def test_no_ledger_is_needed(monkeypatch):
    asked = []
    monkeypatch.setattr(command, "build_services", lambda *_, **how: asked.append(how) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.canary("a=b", "c=d")
    assert asked == [{"needs_ledger": False}]
