"""Runs sweeps and cases in this process, stage by stage, as the DAGs do: the road without Airflow.

A `Road` holds what a scheduler would: which run of which case is at which stage, and what it waits
for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from breakfix.flow import waits
from breakfix.flow.case import run_stage, settle_question
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait
from breakfix.flow.sweep import SweepResult, sweep
from breakfix.model import Answer, Purpose

QUESTIONS = {
    Stage.APPROVE_REPAIR: Purpose.REPAIR,
    Stage.APPROVE_REPAIR_SECOND: Purpose.REPAIR,
    Stage.APPROVE_RETURN: Purpose.RETURN,
    Stage.APPROVE_RETURN_SECOND: Purpose.RETURN,
}
SECOND = frozenset({Stage.APPROVE_REPAIR_SECOND, Stage.APPROVE_RETURN_SECOND})


@dataclass
class Run:
    case_id: str
    fence: int
    node: str
    stage: Stage = Stage.BEGIN
    wait: Wait | None = None
    trail: list[str] = field(default_factory=list)

    @property
    def is_over(self):
        return self.stage is Stage.SETTLE_RUN


class Road:
    """`tick()` moves every run by one stage; `rejects` are nodes whose repair a person refuses."""

    def __init__(self, services: Services, *, approver="oncall", rejects=()):
        self.services, self.approver, self.rejects = services, approver, set(rejects)
        self.runs: dict[str, Run] = {}
        self.is_paused = False

    # -- ports.CaseRuns
    def start(self, case):
        if case.run_id in self.runs:
            return False
        self.runs[case.run_id] = Run(case.id, case.fence, case.node)
        return True

    def live(self):
        return frozenset(k for k, run in self.runs.items() if not run.is_over)

    # -- what the DAGs do
    def sweep(self) -> SweepResult:
        result = sweep(self.services)
        for case in result.cases:
            self.start(case)
        return result

    def tick(self):
        """One stage of every run that waits for nothing, or whose wait is over."""
        waiting = [r for r in self.runs.values() if r.wait is not None and not r.is_over]
        over = waits.over(self.services, [r.wait for r in waiting])
        for run, is_over in zip(waiting, over, strict=True):
            if is_over:
                run.wait = None
        for run in list(self.runs.values()):
            if run.wait is None and not run.is_over:
                self._step(run)

    def _step(self, run: Run):
        if run.stage in QUESTIONS:
            result = self._answer(run, QUESTIONS[run.stage])
        else:
            result = run_stage(self.services, run.stage, run.case_id, run.fence)
        if isinstance(result, Wait):
            run.wait = result
            run.trail.append(f"{run.stage}...")
            return
        assert isinstance(result, Go)
        run.trail.append(f"{run.stage} -> {result.to} ({result.note})")
        run.stage = result.to

    def _answer(self, run: Run, purpose: Purpose):
        is_yes = purpose is Purpose.RETURN or run.node not in self.rejects
        answer = Answer(self.approver, is_yes, "cli", self.services.clock.now())
        return self.settle(run, purpose, [answer])

    def settle(self, run: Run, purpose: Purpose, answers):
        is_second = run.stage in SECOND
        return settle_question(
            self.services, run.case_id, run.fence, purpose, answers, is_second=is_second
        )

    def drive(self, *, until, within_s, sweep_every_s=5.0, clock=time.monotonic, pause=time.sleep):
        """Sweep and tick until `until()` is true. AssertionError with all trails when time is
        up."""
        deadline, next_sweep = clock() + within_s, 0.0
        while not until():
            if clock() >= deadline:
                trails = {k: (r.stage, r.wait, r.trail) for k, r in self.runs.items()}
                raise AssertionError(f"not within {within_s} s: {trails}")
            if clock() >= next_sweep:
                self.sweep()
                next_sweep = clock() + sweep_every_s
            self.tick()
            pause(0.3)
