"""Every number of the default policy is held by a test case: doubled or halved, some case fails.

What is compared are verdicts, never the policy's text: the mutated policy asks a real Prometheus
that holds all cases of tests/policy, and the real decide judges them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from breakfix.policy import Policy, parse_policy
from breakfix.rulebook.cases import load_cases
from breakfix.rulebook.compare import compare
from breakfix.rulebook.running import Result, RuleTests
from breakfix.wiring import default_policy_text
from tests.contract.policy_mutants import Mutant, dumped, mutants

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "policy"
PROCESSES = 2

#: Mutants that no case can tell from the policy, by the beginning of their names, and why.
EQUIVALENT: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One mutant and the case that noticed it ("": none did)."""

    name: str
    killer: str
    wanted: str


def outcomes(url: str, share: int, of: int) -> list[Outcome]:
    """Every `of`-th mutant against the cases that the Prometheus there holds; one process' work."""
    policy = parse_policy(default_policy_text())
    mine = [m for i, m in enumerate(mutants(policy)) if i % of == share]
    with RuleTests(load_cases([FOLDER]), url=url) as tests:
        base = tests.evaluate(policy)
        wrong = [r.source.case.name for r in base if not r.has_passed]
        if wrong:
            raise AssertionError(f"cases fail without any mutation: {wrong}")
        plain = dumped(policy)
        made = ((m, m.policy(plain)) for m in mine)
        return [_outcome(tests, base, m, changed) for m, changed in made if changed is not None]


def _outcome(tests: RuleTests, base: Sequence[Result], mutant: Mutant, changed: Policy) -> Outcome:
    failed = tests.first_failure(changed, _likeliest_first(base, mutant))
    tests.forget()
    killer = failed.source.case.name if failed is not None else ""
    return Outcome(mutant.name, killer, mutant.wanted())


def _likeliest_first(base: Sequence[Result], mutant: Mutant) -> Iterator[int]:
    """Cases in which the signal, XID or class has a part, then all others."""
    parts = mutant.path.split(".")
    word = parts[1] if len(parts) > 1 else parts[0]
    has_part = [_has_part(result, word) for result in base]
    yield from (i for i, has in enumerate(has_part) if has)
    yield from (i for i, has in enumerate(has_part) if not has)


def _has_part(result: Result, word: str) -> bool:
    case = result.source.case
    if word in str(case.expect.findings) + str(case.expect.silent) + str(case.policy):
        return True
    return any(
        word in {f.signal, f.key, str(v.failure_class)}
        for v in result.verdicts.values()
        for f in v.findings
    )


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    context = multiprocessing.get_context("spawn")
    with (
        RuleTests(load_cases([FOLDER])) as tests,
        ProcessPoolExecutor(PROCESSES, mp_context=context) as pool,
    ):
        shares = [pool.submit(outcomes, tests.url, i, PROCESSES) for i in range(PROCESSES)]
        return sorted((o for s in shares for o in s.result()), key=lambda o: o.name)


def _reason(name: str) -> str:
    return next((why for what, why in EQUIVALENT.items() if fnmatchcase(name, f"{what}*")), "")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_number_can_be_doubled_or_halved_without_a_case_noticing(found: list[Outcome]) -> None:
    survivors = [o for o in found if not o.killer and not _reason(o.name)]
    listed = "\n".join(f"  {o.name}: wants {o.wanted}" for o in survivors)
    killed = sum(bool(o.killer) for o in found)
    assert not survivors, f"{len(survivors)} of {len(found)} survive ({killed} killed):\n{listed}"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_list_of_what_no_case_can_tell_holds_nothing_that_one_can(
    found: list[Outcome],
) -> None:
    needless = [o.name for o in found if o.killer and _reason(o.name)]
    unknown = [w for w in EQUIVALENT if not any(fnmatchcase(o.name, f"{w}*") for o in found)]
    assert (needless, unknown) == ([], [])


def test_a_mutant_differs_from_the_policy_in_one_number() -> None:
    policy = parse_policy(default_policy_text())
    made = {m.name: m for m in mutants(policy)}
    halved = made["signals.ecc_dbe.weight 0.95 -> 0.475"].policy(dumped(policy))
    assert halved is not None
    (change,) = compare(policy, halved)
    assert (change.path, change.after) == ("signals.ecc_dbe.weight", pytest.approx(0.475))


def test_every_kind_of_number_is_mutated() -> None:
    names = [m.path for m in mutants(parse_policy(default_policy_text()))]
    for what in (
        "signals.*.threshold",
        "signals.*.window",
        "signals.*.weight",
        "xids.*.weight",
        "classes.*.min_confidence",
        "common_cause.min_nodes",
        "common_cause.min_share",
        "common_cause.window",
        "timing.boot_grace",
        "timing.stale_sample",
    ):
        assert [n for n in names if fnmatchcase(n, what)], what
