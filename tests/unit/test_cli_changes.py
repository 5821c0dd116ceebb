"""`breakfix change`: what is advised, why, and a person's word on it."""

from __future__ import annotations

import json
import sys

import pytest

from breakfix import cli
from breakfix.cli import changes as commands
from tests.flow.test_change_canary import SCOPE, World


@pytest.fixture
def world():
    world = World()
    world.drive_to("BBBAAAAAAA")
    world.fail("a1", "a2", "a3")
    world.look()
    return world


@pytest.fixture
def run(monkeypatch, capsys, world):
    def run(*words):
        monkeypatch.setattr(commands, "build_ledger", lambda *_: world.ledger)
        monkeypatch.setattr(commands, "build_services", lambda *_, **__: world.services)
        monkeypatch.setattr(sys, "argv", ["breakfix", "change", *words])
        monkeypatch.setenv("COLUMNS", "250")
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def test_changes_are_listed_with_their_advice(run):
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert SCOPE in out
    assert "roll_back" in out
    (said,) = json.loads(run("list", "-o", "json")[1])
    assert (said["scope"], said["advice"], said["nodes"]) == (
        SCOPE,
        "roll_back",
        ["a1", "a2", "a3"],
    )


def test_those_that_are_over_are_listed_on_request(run, world):
    world.drive_to("AAAAAAAAAA")
    world.look()
    assert json.loads(run("list", "-o", "json")[1]) == []
    assert len(json.loads(run("list", "--all", "-o", "json")[1])) == 1


def test_one_change_is_shown_with_its_checks(run):
    code, out, _ = run("show", SCOPE)
    assert code == 0
    assert "nodes: a1, a2, a3" in out
    assert "vllm error rate against stable" in out
    checks = json.loads(run("show", SCOPE, "-o", "json")[1])["detail"]["checks"]
    assert {"name", "outcome", "p_value", "limit"} <= checks[0].keys()


def test_accepting_lifts_the_hold_and_says_so(run, world):
    code, out, _ = run("accept", SCOPE, "-r", "known")
    assert code == 0
    assert "repairs in its scope go on" in out
    assert world.advice().advice == "continue"
    assert world.advice().detail["accepted"]["reason"] == "known"


@pytest.mark.parametrize("words", [("show", "nothing"), ("accept", "nothing")])
def test_a_change_that_is_not_there_is_wrong_usage(run, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "change list" in err
