"""The port on Postgres: every method is one transaction of the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any

from sqlalchemy import func, select

from breakfix.adapters.ledger import (
    admission,
    advices,
    answering,
    approvals,
    audit,
    cases,
    emergencies,
    figures,
    given_answers,
    halts,
    labellings,
    learning_reports,
    leases,
    nodes,
    rates,
    reviews,
    rules,
    steps,
    storm_watch,
    storms,
    sweeps,
)
from breakfix.adapters.ledger.cases import Change
from breakfix.adapters.ledger.circuits import LedgerCircuits
from breakfix.adapters.ledger.engine import Database, make_engine
from breakfix.adapters.ledger.review_rules import Said
from breakfix.adapters.ledger.tables import meta
from breakfix.brakes import Breaker, BreakerRule, Emergency, Lift, Storms
from breakfix.cohorts import Advice, ChangeAdvice
from breakfix.model import (
    Answer,
    Approval,
    AuditEntry,
    Case,
    CaseEnd,
    FailureClass,
    GivenAnswer,
    HaltLevel,
    Intent,
    Judgement,
    Label,
    Labelling,
    NodeRecord,
    NodeState,
    Plan,
    Purpose,
    Refusal,
    Scope,
    Step,
    StepStatus,
)
from breakfix.ports import Answered, Figures, Lease, Limit, ReviewItem, Rung, Settle

Rule = Callable[[Case], Case]


class PostgresLedger:
    """`ports.Ledger` for one cluster. Connects on first use; safe to share between threads.

    Forked processes must make their own. Raises LedgerError; its `is_transient` says whether
    asking again may help.
    """

    def __init__(
        self,
        url: str,
        cluster: str = "default",
        *,
        attempts_window_s: float = 604800.0,
        connect_timeout_s: float = 5.0,
        statement_timeout_s: float = 15.0,
        lock_timeout_s: float = 5.0,
    ) -> None:
        self.cluster = cluster
        self._attempts_window = timedelta(seconds=attempts_window_s)
        self._db = Database(
            make_engine(
                url,
                connect_timeout_s=connect_timeout_s,
                statement_timeout_s=statement_timeout_s,
                lock_timeout_s=lock_timeout_s,
            )
        )

    def close(self) -> None:
        """Give all connections back."""
        self._db.close()

    @cached_property
    def id(self) -> str:
        query = select(meta.c.value).where(meta.c.key == "ledger_id")
        return self._db.run(lambda c: str(c.execute(query).scalar_one()))

    @cached_property
    def circuits(self) -> LedgerCircuits:
        """The circuit breakers of this cluster's dependencies."""
        return LedgerCircuits(self._db, self.cluster)

    # ---------------------------------------------------------------- admission

    def admit(
        self, intent: Intent, limits: Sequence[Limit], *, requester: str, now: datetime
    ) -> Case | Refusal:
        return self._db.run(
            lambda c: admission.admit(c, self.cluster, intent, limits, requester=requester, now=now)
        )

    # ---------------------------------------------------------------- cases

    def case(self, case_id: str) -> Case:
        return self._db.read(lambda c: cases.load(c, self.cluster, case_id))

    def cases(
        self,
        *,
        open_only: bool = False,
        node: str | None = None,
        opened_since: datetime | None = None,
    ) -> Sequence[Case]:
        return self._db.read(
            lambda c: cases.list_cases(
                c, self.cluster, open_only=open_only, node=node, opened_since=opened_since
            )
        )

    def move(
        self,
        case_id: str,
        fence: int,
        to: NodeState,
        *,
        actor: str,
        reason: str,
        now: datetime,
        deadline: datetime | None = None,
        repaired_at: datetime | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Case:
        rule = partial(
            rules.moved,
            fence=fence,
            to=to,
            reason=reason,
            now=now,
            deadline=deadline,
            repaired_at=repaired_at,
            detail=detail or {},
        )
        what = Change("case.moved", actor, reason, now)
        return self._db.run(
            lambda c: cases.change(
                c,
                self.cluster,
                case_id,
                lambda case: rule(case, holds_scopes=cases.holds_scopes(c, case)),
                what,
            )
        )

    def end_case(
        self, case_id: str, fence: int, end: CaseEnd, *, actor: str, reason: str, now: datetime
    ) -> Case:
        rule = partial(rules.ended, fence=fence, end=end, reason=reason, now=now)
        return self._change(case_id, rule, Change("case.ended", actor, reason, now))

    def climb(
        self, case_id: str, fence: int, rung: Rung, *, actor: str, reason: str, now: datetime
    ) -> Case:
        rule = partial(rules.climbed, fence=fence, rung=rung, reason=reason, now=now)
        return self._change(case_id, rule, Change("case.climbed", actor, reason, now))

    def take_over(
        self, case_id: str, fence: int, *, actor: str, reason: str, now: datetime
    ) -> Case:
        rule = partial(rules.taken_over, fence=fence, now=now)
        return self._change(case_id, rule, Change("case.taken_over", actor, reason, now))

    def hold(self, case_id: str, *, actor: str, reason: str, now: datetime) -> Case:
        rule = partial(rules.held, actor=actor, now=now)
        return self._change(case_id, rule, Change("case.held", actor, reason, now))

    def unhold(self, case_id: str, *, actor: str, reason: str, now: datetime) -> Case:
        rule = partial(rules.unheld, now=now)
        return self._change(case_id, rule, Change("case.unheld", actor, reason, now))

    def reopen(self, case_id: str, *, actor: str, reason: str, now: datetime) -> Case:
        what = Change("case.reopened", actor, reason, now)
        return self._db.run(lambda c: cases.reopen(c, self.cluster, case_id, what))

    def leases(self) -> Sequence[Lease]:
        return self._db.run(lambda c: leases.list_leases(c, self.cluster))

    def mend_leases(self, *, actor: str, now: datetime) -> Sequence[str]:
        return self._db.run(lambda c: leases.mend(c, self.cluster, actor=actor, now=now))

    def _change(self, case_id: str, rule: Rule, what: Change) -> Case:
        return self._db.run(lambda c: cases.change(c, self.cluster, case_id, rule, what))

    # ---------------------------------------------------------------- steps

    def begin_step(
        self, case_id: str, fence: int, name: str, *, detail: Mapping[str, Any], now: datetime
    ) -> tuple[Step, bool]:
        return self._db.run(
            lambda c: steps.begin(c, self.cluster, case_id, fence, name, detail=detail, now=now)
        )

    def finish_step(
        self,
        case_id: str,
        fence: int,
        name: str,
        status: StepStatus,
        *,
        detail: Mapping[str, Any],
        now: datetime,
    ) -> Step:
        return self._db.run(
            lambda c: steps.finish(
                c, self.cluster, case_id, fence, name, status=status, detail=detail, now=now
            )
        )

    def steps(self, case_id: str) -> Sequence[Step]:
        return self._db.read(lambda c: steps.list_steps(c, self.cluster, case_id))

    # ---------------------------------------------------------------- rates

    def reserve(self, target: str, *, count: int, per_s: float) -> float:
        return self._db.run(
            lambda c: rates.reserve(c, self.cluster, target, count=count, per_s=per_s)
        )

    # ---------------------------------------------------------------- approvals

    @cached_property
    def role(self) -> str:
        return self._db.run(lambda c: str(c.execute(select(func.session_user())).scalar_one()))

    def ask(
        self,
        case_id: str,
        fence: int,
        purpose: Purpose,
        *,
        plan_hash: str,
        expires_at: datetime,
        now: datetime,
        needed: int = 1,
    ) -> Approval:
        question = approvals.Question(self.cluster, case_id, fence, purpose, plan_hash)
        return self._db.run(
            lambda c: approvals.ask(c, question, expires_at=expires_at, now=now, needed=needed)
        )

    def answer(
        self,
        case_id: str,
        fence: int,
        purpose: Purpose,
        answers: Sequence[Answer],
        *,
        plan_hash: str,
        settle: Settle,
        now: datetime,
    ) -> Answered:
        question = approvals.Question(self.cluster, case_id, fence, purpose, plan_hash)
        return self._db.run(lambda c: approvals.answer(c, question, answers, settle, now=now))

    def answers(self, case_id: str) -> Sequence[GivenAnswer]:
        return self._db.run(lambda c: given_answers.of_case(c, self.cluster, case_id))

    def questions(self) -> Sequence[Approval]:
        return self._db.run(lambda c: approvals.open_questions(c, self.cluster))

    def approvals(self, case_id: str) -> Sequence[Approval]:
        return self._db.run(lambda c: approvals.list_approvals(c, self.cluster, case_id))

    # ---------------------------------------------------------------- what sweeps leave

    def record_sweep(self, judgement: Judgement, plan: Plan, *, actor: str, now: datetime) -> str:
        return self._db.run(
            lambda c: sweeps.record(c, self.cluster, judgement, plan, actor=actor, now=now)
        )

    def count_attempts_over(self, window_s: float) -> None:
        """Follow a policy that changed: a repair counts as an attempt for so long."""
        self._attempts_window = timedelta(seconds=window_s)

    def node_records(self, *, now: datetime | None = None) -> Mapping[str, NodeRecord]:
        since = (now or datetime.now(UTC)) - self._attempts_window
        return self._db.run_snapshot(lambda c: nodes.records(c, self.cluster, repairs_since=since))

    def reviews(self, *, open_only: bool = True) -> Sequence[ReviewItem]:
        return self._db.run(lambda c: reviews.list_reviews(c, self.cluster, open_only=open_only))

    # ---------------------------------------------------------------- changes

    def record_advice(
        self,
        scope: str,
        advice: Advice,
        *,
        reason: str,
        nodes: frozenset[str],
        detail: Mapping[str, Any],
        actor: str,
        now: datetime,
    ) -> ChangeAdvice:
        return self._db.run(
            lambda c: advices.record(
                c,
                self.cluster,
                scope,
                advice,
                reason=reason,
                nodes=nodes,
                detail=detail,
                actor=actor,
                now=now,
            )
        )

    def close_advice(self, scope: str, *, actor: str, reason: str, now: datetime) -> None:
        self._db.run(
            lambda c: advices.close(c, self.cluster, scope, actor=actor, reason=reason, now=now)
        )

    def advices(self, *, open_only: bool = True) -> Sequence[ChangeAdvice]:
        return self._db.run(lambda c: advices.list_advices(c, self.cluster, open_only=open_only))

    # ---------------------------------------------------------------- what people say

    def answer_review(
        self,
        review_id: int,
        label: Label,
        *,
        actor: str,
        note: str,
        failure_class: FailureClass | None,
        until: datetime | None,
        now: datetime,
    ) -> ReviewItem:
        said = Said(label, actor, note, failure_class, until, now)
        return self._db.run(lambda c: answering.answer_review(c, self.cluster, review_id, said))

    def label_case(
        self,
        case_id: str,
        label: Label,
        *,
        actor: str,
        note: str,
        failure_class: FailureClass | None,
        now: datetime,
    ) -> Labelling:
        said = Said(label, actor, note, failure_class, None, now)
        return self._db.run(lambda c: answering.label_case(c, self.cluster, case_id, said))

    def labellings(self, *, standing_at: datetime | None = None) -> Sequence[Labelling]:
        if standing_at is None:
            return self._db.run(lambda c: tuple(labellings.history(c, self.cluster)))
        return self._db.run(lambda c: tuple(labellings.in_force(c, self.cluster, now=standing_at)))

    def store_report(self, day: str, body: Mapping[str, Any], *, actor: str, now: datetime) -> bool:
        return self._db.run(
            lambda c: learning_reports.store(c, self.cluster, day, body, actor=actor, now=now)
        )

    def reports(self, *, limit: int = 30) -> Sequence[Mapping[str, Any]]:
        return self._db.run(lambda c: learning_reports.newest(c, self.cluster, limit=limit))

    # ---------------------------------------------------------------- storms

    def storms(self, *, since: datetime) -> Storms:
        return self._db.run_snapshot(lambda c: storms.read(c, self.cluster, since=since))

    def watch_storms(
        self,
        rules: Mapping[Scope, BreakerRule],
        sick: Mapping[str, Sequence[Scope]],
        well: frozenset[str],
        *,
        actor: str,
        now: datetime,
    ) -> Sequence[Breaker]:
        return self._db.run(
            lambda c: storm_watch.watch(c, self.cluster, rules, sick, well, actor=actor, now=now)
        )

    def reset_breaker(self, scope: Scope, *, actor: str, reason: str, now: datetime) -> Breaker:
        return self._db.run(
            lambda c: storm_watch.reset(c, self.cluster, scope, actor=actor, reason=reason, now=now)
        )

    # ---------------------------------------------------------------- emergency

    def ask_emergency(
        self,
        lifts: frozenset[Lift],
        *,
        lasts_s: float,
        requester: str,
        approver: str,
        reason: str,
        answer_by: datetime,
        now: datetime,
    ) -> Emergency:
        asked = Emergency(0, lifts, lasts_s, requester, approver, reason, now, answer_by)
        return self._db.run(lambda c: emergencies.ask(c, self.cluster, asked))

    def approve_emergency(self, *, approver: str, now: datetime) -> Emergency:
        return self._db.run(
            lambda c: emergencies.approve(c, self.cluster, approver=approver, now=now)
        )

    def end_emergency(self, *, actor: str, reason: str, now: datetime) -> Emergency | None:
        return self._db.run(
            lambda c: emergencies.end(c, self.cluster, actor=actor, reason=reason, now=now)
        )

    def emergencies(self, *, limit: int = 10) -> Sequence[Emergency]:
        return self._db.run(lambda c: emergencies.history(c, self.cluster, limit=limit))

    def figures(self) -> Figures:
        return self._db.run_snapshot(lambda c: figures.figures(c, self.cluster))

    # ---------------------------------------------------------------- kill switch

    def halt_level(self) -> HaltLevel:
        return self._db.read(lambda c: halts.level(c, self.cluster))

    def set_halt(self, level: HaltLevel, *, actor: str, reason: str, now: datetime) -> None:
        self._db.run(
            lambda c: halts.set_level(c, self.cluster, level, actor=actor, reason=reason, now=now)
        )

    # ---------------------------------------------------------------- audit

    def audit(
        self, event: str, subject: str, *, actor: str, detail: Mapping[str, Any], now: datetime
    ) -> None:
        self._db.run(
            lambda c: audit.append(
                c, self.cluster, event, subject, actor=actor, detail=detail, now=now
            )
        )

    def audit_entries(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditEntry]:
        return self._db.read(lambda c: audit.entries(c, self.cluster, after=after, limit=limit))

    def head(self) -> tuple[int, str]:
        return self._db.read(lambda c: audit.head(c, self.cluster))

    def verify_audit(self) -> tuple[int, str]:
        return self._db.run_snapshot(lambda c: audit.verify(c, self.cluster))
