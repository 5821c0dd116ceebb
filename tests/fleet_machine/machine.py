"""The random life of a fleet: one seed, one life, the same each time.

A step is (name of an operation, seed of its own choices), so that a life can be cut down to the
steps that matter and lived again.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from breakfix.adapters.ledger import rules as ledger_rules
from breakfix.errors import BreakfixError, IllegalTransition
from breakfix.flow.assessment import assess
from breakfix.flow.case import run_stage
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.model import HaltLevel, NodeState
from tests.fleet_machine import people, profiles, troubles
from tests.fleet_machine.journal import Killed, Task, Trouble
from tests.fleet_machine.lives import Life, SameThread, Worker
from tests.fleet_machine.rules_act import ACT_RULES
from tests.fleet_machine.rules_plan import admission_faults, plan_faults
from tests.fleet_machine.rules_state import END_RULES, STATE_RULES, is_ownerless
from tests.flow.driver import QUESTIONS

CALM_H = 30.0
THREADED = ("breakfix.flow.sweep", "breakfix.act.evictions")


class Violated(AssertionError):
    """A rule was broken; says which, by what step of which life."""

    def __init__(self, rule, text, machine):
        self.rule, self.text = rule, text
        trail = "\n".join(machine.trail[-25:])
        super().__init__(f"{rule}: {text}\n{machine.name}, step {machine.steps}\n{trail}")


@dataclass
class Machine:
    """One life. `run(n)` lives n steps and then comes to rest."""

    seed: int
    profile: str = "all"
    ledger: object = None
    steps: int = 0
    machines: int = 0
    pods: int = 0
    owner_was: dict | None = None
    late: set[tuple[str, int]] = field(
        default_factory=set
    )  # runs before whose return something happened
    trail: list[str] = field(default_factory=list)
    lived: list[tuple[str, float]] = field(default_factory=list)  # to live it again
    inbox: dict = field(default_factory=dict)
    planned: list[Trouble] = field(default_factory=list)
    found: list[tuple[str, str]] = field(default_factory=list)
    did: Counter = field(default_factory=Counter)

    def __post_init__(self):
        rng = random.Random(self.seed)
        self.weights = profiles.PROFILES[self.profile]
        site = rng.choice(self.weights.sites)
        self.name = f"profile {self.profile}, seed {self.seed}, site {site}"
        self.rng = rng
        self._ids = 0
        with self._own_ids():
            self.world = Life(rng, site, ledger=self.ledger, nodes=self.weights.nodes)
        self.base_site = self.world.site
        self.namespace = self.world.services.settings.namespace
        self.world.road.says = self._says
        self.world.journal.hear = self._hear
        self.world.journal.admitted = self._admitted
        self.world.journal.wrote = self._wrote
        self.world.journal.planned = self._plan_made

    # -- what the rules hear

    def _hear(self, effect):
        self.did[effect.kind] += 1
        w = self.world
        for rule in ACT_RULES:
            text = rule(w, effect)
            if text:
                self.found.append((rule.__name__, f"{effect.kind} of {effect.node}: {text}"))
        if effect.after is not None:
            was, now = effect.before.is_unschedulable, effect.after.is_unschedulable
            if now and not was:
                w.truth.cordon[effect.node] = "ours"
            elif was and not now:
                w.truth.cordon.pop(effect.node, None)

    def _wrote(self, method, fence, before):
        """Nobody writes for a case that somebody else has, or that has ended."""
        if before.fence != fence:
            self.found.append(("no_write_at_an_old_fence", f"{method} at {fence} of {before.id}"))
        elif before.ended_at is not None and method != "end_case":
            self.found.append(("no_write_to_an_ended_case", f"{method} of {before.id}"))

    def _admitted(self, task, intent, before, outcome):
        found = list(admission_faults(self.world, task, intent, before, outcome))
        self.found += found
        if hasattr(outcome, "fence"):
            self.did["admitted"] += 1
            self.world.truth.admitted[outcome.id] = (intent.boot_id, self.world.clock.now())

    def _plan_made(self, task, intents, at):
        self.found += list(plan_faults(self.world, task, intents, at))

    # -- tasks of the product

    def task(self, kind, work, run=None, *, may_fail=True):
        """Do it as one process of ours; the troubles that were planned meet it."""
        task = Task(kind, site=self.world.site)
        if run is not None:
            task.case_id, task.fence = run.case_id, run.fence
        if not self.world.journal.stack:
            task.troubles, self.planned = self.planned, []
        self.world.journal.stack.append(task)
        try:
            work()
        except Killed:
            task.end = "killed"
        except BreakfixError as e:
            task.end = f"{type(e).__name__}: {e}"
            if isinstance(e, IllegalTransition):
                self.found.append(("no_way_that_is_none", f"{kind}: {e}"))
        finally:
            self.world.journal.stack.pop()
        self.did[f"{kind} {'ok' if not task.end else task.end.split(':')[0]}"] += 1
        return task

    def sweep(self, rng=None):
        return self.task("sweep", self.world.road.sweep).end or "swept"

    def dry_run(self, rng=None):
        w = self.world
        raw = w.cluster

        def work():
            before = (dict(raw._nodes), len(raw.writes()), w.ledger.head())
            plan = assess(w.services.refreshed()).plan
            self._plan_made(w.journal.task, plan.intents, plan.at)
            if before != (dict(raw._nodes), len(raw.writes()), w.ledger.head()):
                self.found.append(("dry_runs_write_nothing", "it wrote"))

        self.planned = [t for t in self.planned if t.kind != "meanwhile"]
        return self.task("dry run", work).end or "looked"

    def reconcile(self, rng=None):
        w = self.world
        reports = []
        troubles_before = bool(self.planned)
        task = self.task("reconcile", lambda: reports.append(reconcile(w.services, w.road)))
        is_whole = bool(reports) and not troubles_before and not reports[0].notes
        if is_whole and HaltLevel.ALL not in task.halts.values():
            for name, node in w.cluster._nodes.items():
                lost = is_ownerless(w, node)
                w.truth.ownerless[name] = w.truth.ownerless.get(name, 0) + 1 if lost else 0
        return task.end or f"reconciled: {reports[0].notes[:2]}"

    def stage(self, rng):
        """One stage of one run; of two workers, now and then, at once."""
        runs = [r for r in self.world.road.runs.values() if not r.is_over]
        now = self.world.clock.now()
        ready = [r for r in runs if r.wait is None or (r.wait.not_before or now) <= now]
        return self.advance(rng.choice(ready or runs), rng) if runs else None

    def advance(self, run, rng=None):
        road, before = self.world.road, run.stage
        task = self.task("stage", lambda: road.advance(run), run)
        if task.end:
            run.failures += 1
            is_lost = run.failures > 2 or (rng is not None and rng.random() < 0.3)
            if is_lost and not run.is_over:
                road.kill(f"{run.case_id}.{run.fence}")
            return f"{run.node} {before}: {task.end[:80]}{' (lost)' if is_lost else ''}"
        return f"{run.node} {before} -> {run.stage} {'waits' if run.wait else ''}"

    def start(self, case):
        self.world.road.start(case)

    def _says(self, run, purpose):
        answers = self.inbox.pop((run.case_id, run.fence, purpose), None)
        if answers is None and self.world.is_calm:
            if people.question(self, run) is not None:
                people.say(self, run, "oncall")
            answers = self.inbox.pop((run.case_id, run.fence, purpose), None)
        return answers

    # -- time, and trouble to come

    def tick(self, rng):
        self.world.kubelet()
        self.world.clock.sleep(rng.choice((5, 10, 30, 60)))
        return "time goes by"

    def jump(self, rng):
        seconds = rng.choice((300, 900, 3600, 7200, 90000))
        self.world.kubelet()
        self.world.clock.sleep(seconds)
        return f"{seconds} s go by"

    def crash(self, rng):
        kind = rng.choice(("kill_before", "kill_after"))
        self.planned.append(Trouble(kind, rng.randint(1, 6)))
        return f"the next task: {kind} its write {self.planned[-1].at}"

    def error(self, rng):
        kind = rng.choice(("error", "lost_answer"))
        self.planned.append(Trouble(kind, rng.randint(1, 40)))
        return f"the next task: {kind} at call {self.planned[-1].at}"

    def meanwhile(self, rng):
        names, weights = zip(*self.weights.meanwhile.items(), strict=True)
        name, seed = rng.choices(names, weights)[0], rng.random()
        method = rng.choice(self.weights.methods)
        at = rng.randint(1, 4) if method else rng.randint(1, 40)
        work = lambda: self._act(name, seed, "    ")  # noqa: E731
        self.planned.append(Trouble("meanwhile", at, work, method=method))
        return f"the next task, at call {at} {method}: {name}"

    def presumed_dead(self, rng):
        """All workers are given up, and their cases get new runs; who was only slow goes on."""
        live = [k for k, run in self.world.road.runs.items() if not run.is_over]
        for run_id in live:
            self.world.road.kill(run_id)
        self.reconcile()
        return f"{len(live)} workers are presumed dead" if live else None

    def twin_escalates(self, rng):
        """Another worker of the same run, which somebody started, gives the case up."""
        outer = self.world.journal.stack[-1] if self.world.journal.stack else None
        if outer is None or not outer.case_id:
            return None
        key, services = (outer.case_id, outer.fence), self.world.services
        self.task("stage", lambda: run_stage(services, Stage.ESCALATE, *key), Worker(*key, ""))
        return f"a twin escalates {outer.case_id}"

    def cut_sweep(self, rng):
        """A sweep that dies after an admission, before the node is quarantined."""
        self.planned = [Trouble("kill_before", rng.randint(1, 2), method="patch_node")]
        return self.sweep()

    def relapse(self, rng):
        """A node under watch breaks, and a sweep comes at once. A person who takes the case into
        their hands comes between its look and its admission, or does not.
        """
        watched = [c for c in self.world.open_cases() if c.state is NodeState.RETURNING]
        if not watched:
            return None
        case = rng.choice(watched)
        self.world.break_node(case.node, rng.choice((79, 95)))

        def hold():
            self.world.ledger.hold(case.id, actor="ann", reason="", now=self.world.clock.now())

        is_held = rng.random() < 0.5
        self.planned = [Trouble("meanwhile", 1, hold, method="admit")] if is_held else []
        return f"{case.node} breaks under watch{', and is held' * is_held}: {self.sweep()}"

    def let_go(self, name):
        troubles.strip_hands(self.world, name)

    def forget_node(self, name):
        """The machine is gone, with all that was put on it."""
        t = self.world.truth
        self.world.plugins.discard(name)
        for kept in (t.cordon, t.foreign, t.taken_back, t.ownerless):
            kept.pop(name, None)
        t.repairs[:] = [r for r in t.repairs if r[2] != name]

    # -- steps

    def _act(self, name, seed, indent=""):
        work = getattr(self, name, None) or getattr(people, name, None) or getattr(troubles, name)
        rng = random.Random(seed)
        is_method = hasattr(self, name)
        said = work(rng) if is_method else work(self, rng)
        if said is not None:
            self.trail.append(f"{indent}{self.world.clock.now():%d %H:%M:%S} {name}: {said}")
        return said

    @contextmanager
    def _own_ids(self):
        """Case ids that are the same in every life of a seed, and no threads."""

        def next_id(now):
            self._ids += 1
            return f"{now:%Y%m%d}-c{self._ids:03}"

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledger_rules, "new_case_id", next_id)
            for name in THREADED:
                patch.setattr(sys.modules[name], "ThreadPoolExecutor", SameThread)
            yield

    def step(self, name=None, seed=None):
        """One step, drawn or given; Violated when a rule is broken."""
        self.steps += 1
        with self._own_ids():
            if name is None:
                self._draw()
            else:
                self.lived.append((name, seed))
                self._act(name, seed)
            self._check(STATE_RULES)

    def _draw(self):
        """What there is nothing to do for is drawn again."""
        names, weights = self.weights.drawn
        for _ in range(9):
            name, seed = self.rng.choices(names, weights)[0], self.rng.random()
            self.lived.append((name, seed))
            if self._act(name, seed) is not None:
                return
            self.lived.pop()

    def _check(self, rules):
        self.world.note_ends()
        for rule in rules:
            text = rule(self.world)
            if text:
                self.found.append((rule.__name__, text))
        if self.found:
            raise Violated(*self.found[0], self)

    def run(self, steps):
        """Live, then come to rest; returns the number of steps."""
        for _ in range(steps):
            self.step()
        self.rest()
        return self.steps

    def rest(self):
        """All is well and people answer: whatever was begun must come to its end."""
        self.trail.append("-- rest")
        with self._own_ids():
            self.planned = []
            troubles.calm(self)
            self.world.is_calm = True
            w, until = self.world, self.world.clock.now() + timedelta(hours=CALM_H)
            while w.open_cases() and w.clock.now() < until:
                self._rest_a_while()
            for _ in range(2):
                self.reconcile()
            self._check((*STATE_RULES, *END_RULES))

    def _rest_a_while(self):
        w = self.world
        w.clock.sleep(150.0)
        self.sweep()
        self.reconcile()
        for _ in range(4):
            w.kubelet()
            w.clock.sleep(20.0)
            for run in [r for r in w.road.runs.values() if not r.is_over]:
                if run.stage in QUESTIONS:
                    run.wait = None
                self.advance(run)
        for case in w.open_cases():
            if case.requester.startswith("cli:") and case.state is NodeState.QUARANTINED:
                people.drained_by_hand_is_over(self, random.Random(1))
        self._check(STATE_RULES)
