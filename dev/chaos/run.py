"""One run: break, kill and watch, until time is up and every case has settled."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from breakfix.adapters.ledger import PostgresLedger
from breakfix.model import Case, CaseEnd, NodeState, StepStatus
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger
from dev.chaos.killer import Killer
from dev.chaos.schedule import INCURABLE, LIES, Break, Schedule, make_schedule
from dev.chaos.watch import Ended, Truth, Watch, at_the_end
from dev.demo.approver import Approver
from dev.stack.stack import Stack
from simfleet.client import ControlClient, ControlError

SAMPLE_S = 0.3
TELL_S = 10.0
ROLLOUT_RACK = "r11"
ROLLOUT_AT_S = 200.0
REFRESH_S = 1.0


@dataclass(slots=True)
class Result:
    """What a run showed."""

    seed: int
    lasted_s: float
    kills: Counter[str]
    breaks: Counter[str]
    ends: Counter[str]
    cases: int
    entries: int
    watch: Watch
    wrong: list[str]
    troubles: list[str] = field(default_factory=list)
    quiet_s: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.wrong and not self.watch.violations


class Run:
    """A run on a stack that is up."""

    def __init__(self, stack: Stack, seed: int, lasts_s: float, say: Callable[[str], None]) -> None:
        os.environ.update(stack.env)
        self._say = say
        self._ledger: PostgresLedger = build_ledger(load_settings())
        self._control = ControlClient(stack.fleet.url)
        self._schedule: Schedule = make_schedule(seed, lasts_s=lasts_s)
        self._seed, self._lasts_s = seed, lasts_s
        nodes = self._look()
        self._watch = Watch(frozenset(str(n["node"]) for n in nodes if n["cordoned"]))
        self._watch.fleet_most = sum(1 for n in nodes if n["gpus"]) // 2  # the overlay's share
        self._watch.never |= {str(n["node"]) for n in nodes if n["rack"] == ROLLOUT_RACK}
        self._watch.never |= {str(n["node"]) for n in nodes if not n["gpus"]}
        self._killer = Killer(stack, self._control, seed)
        self._approver = Approver(
            stack.airflow.url, "oncall", stack.airflow.passwords["oncall"], rejects=frozenset()
        )
        self._broken: Counter[str] = Counter()
        self._incurable: set[str] = set()
        self._begun = time.monotonic()
        self._cases: list[Case] = []
        self._told = self._refreshed = 0.0

    def go(self, settle_s: float) -> Result:
        """Harass for the run's time, then wait at most `settle_s` for every case to settle."""
        self._begun = time.monotonic()
        self._approver.start()
        self._killer.start()
        breaks, kills = list(self._schedule.breaks), list(self._schedule.kills)
        is_rolled_out = False
        try:
            while (now := self._now()) < self._lasts_s + settle_s:
                while breaks and breaks[0].at_s <= now:
                    self._break(breaks.pop(0), now)
                while kills and kills[0].at_s <= now:
                    self._killer.add(kills.pop(0))
                if now >= ROLLOUT_AT_S and not is_rolled_out:
                    is_rolled_out = True
                    path = f"/sim/racks/{ROLLOUT_RACK}/break"
                    self._control.post(path, {"fault": "bad_driver_rollout", "stagger_s": 0.5})
                self._sample(now)
                if now > self._lasts_s and self._is_settled():
                    break
                time.sleep(SAMPLE_S)
        finally:
            self._killer.stopping.set()
            self._approver.stopping.set()
            self._killer.join(30.0)
        return self._result()

    def _now(self) -> float:
        return time.monotonic() - self._begun

    def _look(self) -> list[Truth]:
        found: list[Truth] = self._control.get("/sim/status")["nodes"]
        return found

    def _sample(self, now: float) -> None:
        try:
            self._watch.sample(self._look(), now)
        except ControlError as error:
            self._killer.troubles.append(f"a sample was missed: {error}"[:200])
        if now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self._cases = list(self._ledger.cases())
        if now - self._told >= TELL_S:
            self._told = now
            self._tell(now)

    def _tell(self, now: float) -> None:
        states = Counter(str(c.state) if c.is_open else str(c.end) for c in self._cases)
        told = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "no case"
        kills = self._killer.counted.total()
        bad = f"; {len(self._watch.violations)} VIOLATIONS" if self._watch.violations else ""
        self._say(f"{now:5.0f} s  {self._broken.total()} faults, {kills} kills; {told}{bad}")

    def _break(self, planned: Break, now: float) -> None:
        """On a node that is whole and in service, and has no case.

        One real fault a pool at a time: more together would be a common cause, which holds all.
        """
        # A second fault of a node within the hour is rightly held for its hardware: each has one.
        busy = {c.node for c in self._cases}
        pool = [n for n in self._look() if n["pool"] == planned.pool]
        if planned.fault not in LIES and any(n["cordoned"] or _needs_somebody(n) for n in pool):
            return
        whole = [
            str(n["node"])
            for n in pool
            if not (n["cordoned"] or n["faults"] or n["comes_again"] or not n["up"])
            and n["node"] not in busy | self._incurable | self._watch.never
        ]
        if len(whole) <= 1:  # the pool keeps a node
            return
        node = sorted(whole)[int(planned.pick * len(whole))]
        body = {"fault": planned.fault, "gpu": int(planned.pick * 7)}
        if planned.fault in LIES:
            body |= {"lasts_s": 60.0} if planned.fault == "hot" else {"count": 5}
        self._control.post(f"/sim/nodes/{node}/break", body)
        self._broken[planned.fault] += 1
        if planned.fault in INCURABLE:
            self._incurable.add(node)
        if planned.fault in LIES:
            self._watch.never.add(node)
        if planned.fault == "xid79":
            self._watch.broke(node, now)

    def _is_settled(self) -> bool:
        self._cases = list(self._ledger.cases())
        if any(c.is_open for c in self._cases):
            return False
        waiting = [n for n in self._look() if _needs_somebody(n) and not self._is_left(n)]
        return not waiting

    def _is_left(self, node: Truth) -> bool:
        """Escalated, or behind an escalated node of its pool, whose slot is not free."""
        stuck = {c.node for c in self._cases if c.end is CaseEnd.ESCALATED}
        pools = {n["pool"] for n in self._look() if n["node"] in stuck}
        return node["node"] in stuck or node["pool"] in pools or node["rack"] == ROLLOUT_RACK

    def _result(self) -> Result:
        self._control.delete("/sim/api-faults")
        cases = list(self._ledger.cases())
        entries, fault = self._ledger.verify_audit()
        nodes = self._look()
        wrong = at_the_end(
            [self._ended(c) for c in cases],
            [n for n in nodes if n["gpus"]],
            foreign=self._watch.foreign,
            incurable=self._incurable,
            rebooted=self._reboots(),
            audit_fault=fault,
        )
        return Result(
            seed=self._seed,
            lasted_s=self._now(),
            kills=self._killer.counted,
            breaks=self._broken,
            ends=Counter(str(c.end) if c.end else f"open ({c.state})" for c in cases),
            cases=len(cases),
            entries=entries,
            watch=self._watch,
            wrong=wrong,
            troubles=[*self._killer.troubles, *self._approver.troubles],
        )

    def _ended(self, case: Case) -> Ended:
        steps = self._ledger.steps(case.id)
        is_escalated = case.state is NodeState.ESCALATED
        return Ended(
            id=case.id,
            node=case.node,
            is_open=case.is_open,
            end="escalated" if is_escalated else str(case.end or ""),
            reboots=sum("reboot" in s.name or "power_cycle" in s.name for s in steps),
            dispatched=tuple(s.name for s in steps if s.status is StepStatus.DISPATCHED),
        )

    def _reboots(self) -> Counter[str]:
        events = self._control.get("/sim/events", {"what": "reboot_started"})
        return Counter(str(e["node"]) for e in events)


def _needs_somebody(node: Truth) -> bool:
    return any(f["fault"] not in LIES for f in node["faults"])
