"""The world with what the machine asks of it: runs, records, and who said yes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from breakfix.flow import waits
from breakfix.model import Action
from tests.fleet_machine.fleets import Fleet
from tests.flow.driver import Run
from tests.flow.world import FakeRoad


@dataclass
class Worker(Run):
    failures: int = 0


class SameThread:
    """An executor that does each thing when it is asked for: a seed must live the same life."""

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return False

    def submit(self, work, *args, **kwargs):
        future = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as e:  # noqa: BLE001  # as an executor does
            future.set_exception(e)
        return future

    def map(self, work, *many):
        return [work(*each) for each in zip(*many, strict=False)]

    def shutdown(self, **kwargs):
        pass


class MachineRoad(FakeRoad):
    """Runs that go on one stage at a time, when they are told to."""

    def start(self, case):
        if case.run_id in self.runs:
            return False
        self.runs[case.run_id] = Worker(case.id, case.fence, case.node)
        return True

    def advance(self, run):
        """Its wait is looked at; when that is over, its stage works."""
        if run.wait is not None:
            if not waits.over(self.services, [run.wait])[0]:
                return
            run.wait = None
        self._step(run)
        run.failures = 0


class Life(Fleet):
    """A fleet, its runs and its records."""

    def __init__(self, rng, site_name, **kwargs):
        super().__init__(rng, site_name, **kwargs)
        self.road = MachineRoad(self.services, None)
        self.is_calm = False
        self._entries, self._by_subject, self._seen = [], {}, 0

    def open_cases(self):
        return self.ledger.cases(open_only=True)

    # -- the audit

    def _read_audit(self):
        while True:
            fresh = self.ledger.audit_entries(after=len(self._entries), limit=1000)
            for entry in fresh:
                self._by_subject.setdefault(entry.subject, []).append(entry)
            self._entries += fresh
            if len(fresh) < 1000:
                return

    def entries(self):
        """All entries so far."""
        self._read_audit()
        return self._entries

    def audit_of(self, case_id):
        """Entries about a case so far."""
        self._read_audit()
        return self._by_subject.get(case_id, [])

    def new_entries(self):
        """Those since it was asked last, and the one before them."""
        self._read_audit()
        fresh = self._entries[max(0, self._seen - 1) :]
        self._seen = len(self._entries)
        return fresh

    def note_ends(self):
        """When the last case of each node ended."""
        for case in self.ledger.cases():
            if case.ended_at and case.node in self.cluster._nodes:
                known = self.truth.ended.get(case.node)
                if known is None or case.ended_at > known:
                    self.truth.ended[case.node] = case.ended_at

    # -- what people have said

    def asks_for(self, case, site):
        """Whether policy, then or now, wants a yes before this case disrupts anything."""
        if case.action is Action.DRAIN_ONLY:
            return False
        if case.detail.get("needs_approval"):
            return True
        failure_class = str(case.failure_class)
        return failure_class in site.two_for or site.modes.get(failure_class) == "approve"

    def has_yes(self, case, purpose, site):
        """As many yeses as policy asks for, to this plan, and no no that came with them."""
        mine = [s for s in self.truth.said if (s.case_id, s.purpose) == (case.id, purpose)]
        good = [s for s in mine if self._counts(s, case, purpose, site)]
        wanted = site.people_for(case, purpose)
        people = {s.who for s in good if s.is_yes and not self._has_no(good, s)}
        return len(people) >= wanted

    def _has_no(self, good, yes):
        return any(
            not s.is_yes and s.asked_at == yes.asked_at and s.at <= yes.at and s is not yes
            for s in good
        )

    def _counts(self, said, case, purpose, site):
        if said.plan_hash != case.plan_hash or not said.asked_at <= said.at < said.expires_at:
            return False
        if not site.hears(said, case):
            return False
        if purpose == "return":
            return self.clock.now() <= said.expires_at
        return said.who != case.requester.rpartition(":")[2]
