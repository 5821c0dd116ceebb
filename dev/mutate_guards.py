"""Takes every guard away, one at a time, and lives random lives until a rule notices.

`python -m dev.mutate_guards [--only WORD] [--jobs N]` prints a table: guard, the rule that noticed,
after how many steps. It ends with 1 when a guard's absence goes unnoticed.

The guards are read from the code: every function in the tuples of `plan.limits`, and in the
functions of TARGETS every `if` that raises or refuses, and every call of another check. A new one
joins by being there.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import inspect
import logging
import multiprocessing as mp
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import CodeType, FunctionType, ModuleType
from typing import Any

LIFE = 200
#: Where guards stand: module, and functions ("" = all that raise or return a refusal).
TARGETS: tuple[tuple[str, str], ...] = (
    ("breakfix.act.guard", "_check_case _check_node _check_hands check_ours _check_reason"),
    ("breakfix.act.guard", "_checked_slowly"),
    ("breakfix.act.ownership", "check_ownership _check_history"),
    ("breakfix.adapters.ledger.rules", "refuse_by_state refuse_by_limit() check_fence check_open"),
    ("breakfix.approve", "why_not _why_not_annotation"),
    ("breakfix.flow.answers", "require_approved_repair() require_approved_return()"),
    ("breakfix.flow.proof", "doubt_about_return"),
    ("breakfix.flow.repairs", "_why_not_drained _occupied"),
)
TUPLES = ("GUARDS", "ACT_GUARDS", "QUARANTINE_GUARDS")
#: In which lives a guard's absence shows soonest; the others are tried after it.
#: Guards of the tuples have a profile of their name.
LOOKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("is_still_looking", ("skips",)),
    ("_why_not_drained", ("pushes",)),
    ("rules.refuse_by_limit", ("slots", "admissions")),
    ("rules.refuse_by_state: current.held_by", ("watched",)),
    ("rules.refuse", ("admissions", "switch")),
    ("held", ("held",)),
    ("fence", ("fences",)),
    ("is_open", ("ends",)),
    ("ended_at", ("ends", "fences")),
    ("check_open", ("ends", "fences")),
    ("owner", ("owners", "switch")),
    ("alt", ("switch", "halted")),
    ("level", ("switch", "halted")),
    ("node_uid", ("objects", "cut:objects", "machines")),
    ("guard._check_node: expected.boot_id", ("boots", "cut:boots")),
    ("boot_id", ("returns", "boots")),
    ("_check_hands: hold", ("other_owner",)),
    ("_check_hands: node.labels", ("excluded",)),
    ("check_ours", ("taken", "hands")),
    ("_check_hands(", ("taken", "excluded", "other_owner")),
    ("is_of", ("claims", "taken", "machines")),
    ("is_unschedulable", ("taken",)),
    ("has_taint", ("taken",)),
    (": gone", ("healed", "boots")),
    (": broken", ("scopes_full", "alert_fires", "recommended_only")),
    ("_check_reason(", ("healed", "cordoned_by_others", "hands")),
    ("_check_case(", ("hands", "held")),
    ("_why_not_annotation", ("annotations",)),
    ("why_not", ("yeses", "two", "answers")),
    ("expires_at", ("late", "yeses")),
    ("approved_return", ("unanswered",)),
    ("answers", ("pushes", "late", "yeses")),
    ("proof is None", ("pushes",)),
    ("proof", ("proofs",)),
    ("_check_history", ("owners",)),
    ("_occupied", ("strays",)),
    ("patches", ("versions",)),
    ("evictions", ("names",)),
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A guard that is missing. `what` is its condition, as it stands in the code."""

    place: str
    what: str
    remove: Callable[[], Callable[[], None]]  # takes it away; the result puts it back

    @property
    def name(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a fleet without that guard; `rule` is empty when nobody noticed."""

    mutant: str
    rule: str
    text: str
    profile: str
    steps: int
    cpu_s: float


# --------------------------------------------------------------------------- the guards


def mutants() -> list[Mutant]:
    """All of them, in the order of the code."""
    return [*_tuple_mutants(), *_code_mutants(), *_other_mutants()]


def _tuple_mutants() -> Iterator[Mutant]:
    limits = importlib.import_module("breakfix.plan.limits")
    for name in TUPLES:
        for guard in getattr(limits, name):
            yield Mutant(f"{name}.{guard.__name__}", "the whole guard", _without(name, guard))


def _without(name: str, guard: Callable[..., Any]) -> Callable[[], Callable[[], None]]:
    """Every caller asks `first_refusal` with one of the tuples: that tuple lacks the guard now."""

    def remove() -> Callable[[], None]:
        limits = importlib.import_module("breakfix.plan.limits")
        whole, real = getattr(limits, name), limits.first_refusal
        default = inspect.signature(real).parameters["guards"].default

        def lacking(candidate: Any, world: Any, guards: Any = default) -> Any:
            if guards is whole:
                guards = tuple(g for g in guards if g is not guard)
            return real(candidate, world, guards)

        return _replace_everywhere(real, lacking)

    return remove


def _replace_everywhere(old: object, new: object) -> Callable[[], None]:
    """In every module of ours that imported it by name."""
    places = [
        (module, key)
        for name, module in list(sys.modules.items())
        if name.startswith(("breakfix", "tests."))
        for key, value in list(vars(module).items())
        if value is old
    ]
    for module, key in places:
        setattr(module, key, new)

    def restore() -> None:
        for module, key in places:
            setattr(module, key, old)

    return restore


def _code_mutants() -> Iterator[Mutant]:
    for module_name, functions in TARGETS:
        module = importlib.import_module(module_name)
        for name in functions.split():
            function = getattr(module, name.removesuffix("()"), None)
            if function is None:
                raise SystemExit(f"{module_name} has no {name} any more: put TARGETS right")
            if name.endswith("()"):
                yield Mutant(f"{_short(module)}.{function.__name__}", "all of it", _empty(function))
            else:
                yield from _of_function(module, function)


def _short(module: ModuleType) -> str:
    return module.__name__.removeprefix("breakfix.").removeprefix("adapters.")


def _empty(function: FunctionType) -> Callable[[], Callable[[], None]]:
    """The function says nothing: None."""

    def remove() -> Callable[[], None]:
        before = function.__code__
        tree = _tree(function)
        tree.body[0].body = [ast.Return(ast.Constant(None))]  # type: ignore[attr-defined]
        return _with_code(function, tree, before)

    return remove


def _of_function(module: ModuleType, function: FunctionType) -> Iterator[Mutant]:
    tree = _tree(function)
    short = _short(module)
    for number, node in enumerate(_guards(tree)):
        text = " ".join(ast.unparse(node.test if isinstance(node, ast.If) else node).split())
        yield Mutant(f"{short}.{function.__name__}", text[:70], _cut(function, number))


def _tree(function: FunctionType) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _guards(tree: ast.AST) -> list[ast.AST]:
    return [n for n in ast.walk(tree) if _is_guard(n)]


def _is_guard(node: ast.AST) -> bool:
    """An `if` whose whole body says no, or a call whose result nobody takes: it can only raise."""
    if isinstance(node, ast.If):
        last = node.body[-1]
        if isinstance(last, ast.Raise):
            return True
        return isinstance(last, ast.Return) and _says_no(last.value)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = ast.unparse(node.value.func).rpartition(".")[2]
        return "check" in called
    return False


def _says_no(value: ast.expr | None) -> bool:
    """A sentence, or a refusal that is made there; not None, "" or what was looked for."""
    if isinstance(value, ast.Constant):
        return bool(value.value)
    if isinstance(value, ast.Call):
        return not ast.unparse(value.func).startswith("_why_not")  # that one says it, or not
    return isinstance(value, ast.JoinedStr | ast.IfExp)


class _Cutter(ast.NodeTransformer):
    def __init__(self, target: ast.AST) -> None:
        self._target = target

    def visit(self, node: ast.AST) -> Any:
        if node is not self._target:
            return self.generic_visit(node)
        if isinstance(node, ast.If) and node.orelse:
            return node.orelse
        return ast.Pass()


def _cut(function: FunctionType, number: int) -> Callable[[], Callable[[], None]]:
    """The function without its guard of that number; every reference to it feels that."""

    def remove() -> Callable[[], None]:
        tree = _tree(function)
        tree = _Cutter(_guards(tree)[number]).visit(tree)
        return _with_code(function, tree, function.__code__)

    return remove


def _with_code(function: FunctionType, tree: ast.Module, before: CodeType) -> Callable[[], None]:
    code = compile(ast.fix_missing_locations(tree), "<mutant>", "exec", flags=_ANNOTATIONS)
    made: dict[str, Any] = {}
    exec(code, dict(function.__globals__), made)  # noqa: S102
    function.__code__ = made[function.__name__].__code__

    def restore() -> None:
        function.__code__ = before

    return restore


_ANNOTATIONS = 0x1000000  # from __future__ import annotations


def _other_mutants() -> Iterator[Mutant]:
    """What is no `if` of ours, but a precondition of a request."""
    yield Mutant("evictions", "the precondition of the pod's uid", _evict_by_name)
    yield Mutant("node patches", "the precondition of the resourceVersion", _patch_any_version)


def _evict_by_name() -> Callable[[], None]:
    cluster = _test_module("tests.fakes_cluster").FakeCluster
    real = cluster.evict

    def evict(self: Any, namespace: str, name: str, uid: str, **rest: Any) -> Any:
        pod = self._pods.get((namespace, name))
        return real(self, namespace, name, pod.uid if pod else uid, **rest)

    cluster.evict = evict

    def restore() -> None:
        cluster.evict = real

    return restore


def _patch_any_version() -> Callable[[], None]:
    cluster = _test_module("tests.fakes_cluster").FakeCluster
    real = cluster.patch_node

    def patch_node(self: Any, name: str, version: str, patch: Any) -> Any:
        node = self._nodes.get(name)
        return real(self, name, node.resource_version if node else version, patch)

    cluster.patch_node = patch_node

    def restore() -> None:
        cluster.patch_node = real

    return restore


# --------------------------------------------------------------------------- the lives


def hunt(name: str, budget_s: float) -> Result:
    """Live without that guard until a rule notices, or the CPU seconds are used up."""
    machines = _test_module("tests.fleet_machine.machine")
    mutant = next(m for m in mutants() if m.name == name)
    began, steps = time.process_time(), 0
    for seed, profile in _lives(name):
        if time.process_time() - began > budget_s:
            break
        restore = mutant.remove()
        machine = machines.Machine(seed, profile)
        try:
            machine.run(LIFE)
        except machines.Violated as e:
            restore()
            _must_be_well(seed, profile, machine.steps)
            took = time.process_time() - began
            return Result(name, e.rule, e.text, profile, steps + machine.steps, took)
        except Exception as e:  # noqa: BLE001  # a life that ends so is noticed, too
            took = time.process_time() - began
            text = f"it crashed: {type(e).__name__}"
            return Result(name, text, str(e), profile, steps + machine.steps, took)
        finally:
            restore()
        steps += machine.steps
    return Result(name, "", "", "", steps, time.process_time() - began)


def _must_be_well(seed: int, profile: str, steps: int) -> None:
    """The same life with the guard in its place: else it is not the guard that was noticed."""
    machines = _test_module("tests.fleet_machine.machine")
    try:
        machines.Machine(seed, profile).run(steps)
    except machines.Violated as e:
        raise SystemExit(f"with all guards in place: {e}") from e


def _lives(name: str) -> Iterator[tuple[int, str]]:
    """(seed, profile): the likely looks a score of times each, then all of them in turn."""
    profiles = _test_module("tests.fleet_machine.profiles").PROFILES
    likely = _likely(name)
    for seed in range(1, 1000):
        for profile in likely:
            yield seed, profile
        if not likely or seed % 20 == 0:
            for profile in profiles:
                if profile not in likely:
                    yield seed, profile


def _test_module(name: str) -> Any:
    """The tests are not typed, so they are not imported where types are checked."""
    return importlib.import_module(name)


def _likely(name: str) -> tuple[str, ...]:
    """Profiles in which that guard is asked all the time."""
    of_tuple, _, guard = name.partition(":")[0].partition(".")
    if of_tuple == "QUARANTINE_GUARDS":
        return (f"cut:{guard}",)
    if of_tuple in TUPLES:
        return (guard,)
    return next((looks for word, looks in LOOKS if word in name), ())


def warm_up() -> None:
    """Parse each policy once, before the children are made."""
    policy_with = _test_module("tests.flow.world").policy_with
    for site in _test_module("tests.fleet_machine.fleets").SITES.values():
        policy_with(site.overlay())


def hunt_all(wanted: Sequence[str], *, jobs: int, budget_s: float) -> Iterator[Result]:
    """The results as they come; each hunt in a process of its own, which it may spoil."""
    warm_up()
    fork = mp.get_context("fork")
    waiting = list(wanted)
    running: dict[Any, tuple[BaseProcess, str]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            ours, theirs = fork.Pipe()
            process: BaseProcess = fork.Process(
                target=_hunt_and_tell, args=(theirs, name, budget_s)
            )
            process.start()
            theirs.close()
            running[ours] = (process, name)
        ready = wait(list(running), timeout=60 * budget_s)
        for end in ready or list(running):
            process, name = running.pop(end)
            yield _result(end, process, name)


def _hunt_and_tell(end: Any, name: str, budget_s: float) -> None:
    logging.disable(logging.CRITICAL)  # of this process alone
    end.send(hunt(name, budget_s))


def _result(end: Any, process: BaseProcess, name: str) -> Result:
    """What it sent; a process that hangs or dies has noticed nothing."""
    try:
        sent: Result = end.recv() if end.poll() else Result(name, "", "it hangs", "", 0, 0.0)
    except EOFError:
        sent = Result(name, "", "it died", "", 0, 0.0)
    finally:
        process.kill()
        process.join()
    return sent


def main(arguments: Sequence[str] | None = None) -> int:
    """Hunt, print the table, and say whether one guard was not missed."""
    parser = argparse.ArgumentParser(description="which rule notices that a guard is missing")
    parser.add_argument("--only", default="", help="guards whose name has this word")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--budget", type=float, default=90.0, help="CPU seconds for one guard")
    args = parser.parse_args(arguments)
    wanted = [m.name for m in mutants() if args.only in m.name]
    print(f"{'guard':<86} {'noticed by':<34} {'steps':>6} {'s':>4}", flush=True)
    unnoticed: list[str] = []
    with contextlib.suppress(KeyboardInterrupt):
        for r in hunt_all(wanted, jobs=args.jobs, budget_s=args.budget):
            said = r.rule or "NOBODY"
            print(f"{r.mutant:<86} {said:<34} {r.steps:>6} {r.cpu_s:>4.0f}", flush=True)
            unnoticed += [r.mutant] * (not r.rule)
    print(f"{len(wanted)} guards, {len(unnoticed)} of them not missed by anybody")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
