"""The random lives can tell when a guard is missing. A handful; `make mutate-guards` does all."""

from __future__ import annotations

import logging

import pytest

from breakfix.plan import limits
from dev.mutate_guards import TUPLES, hunt, main, mutants

SEEN_SOON = [
    ("GUARDS.halted", "no_plan_under_halt"),
    ("ACT_GUARDS.scopes_full", "limits"),
    ("act.guard._check_case: current.fence", "fence"),
    ("act.guard._check_case: not current.is_open", "fence"),
    ("ledger.rules.check_fence: case.fence", "no_write_at_an_old_fence"),
    ("ledger.rules.refuse_by_state: current.state", "no_admission_of_a_case_at_work"),
    ("flow.repairs._occupied", "nobody_is_on_it"),
    ("node patches", "others_marks"),
]


def the(word):
    (name,) = [m.name for m in mutants() if m.name.startswith(word)]
    return name


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("word", "rule"), SEEN_SOON, ids=[w for w, _ in SEEN_SOON])
def test_a_missing_guard_is_noticed(word, rule):
    assert hunt(the(word), 60.0).rule == rule
    assert not logging.root.manager.disable  # the tests after it read their logs


def test_every_guard_of_the_tuples_is_one_of_them():
    wanted = {f"{t}.{g.__name__}" for t in TUPLES for g in getattr(limits, t)}
    assert wanted <= {m.place for m in mutants()}
    names = [m.name for m in mutants()]
    assert len(names) == len(set(names))


def test_what_is_taken_away_comes_back():
    from breakfix.act import guard

    before = guard._check_case.__code__
    restore = next(m for m in mutants() if "_check_case" in m.place).remove()
    assert guard._check_case.__code__ is not before
    restore()
    assert guard._check_case.__code__ is before


def test_a_guard_that_nobody_misses_fails_the_run(capsys):
    assert main(["--only", "the precondition of the pod's uid", "--budget", "0"]) == 1
    assert "NOBODY" in capsys.readouterr().out
