"""A ledger in memory: the whole port, the same contract tests as Postgres, nothing to start."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import wraps

from breakfix.adapters.ledger import (
    approval_rules,
    chain,
    given_answers,
    labellings,
    learning_reports,
    review_rules,
    rules,
    sweep_rules,
)
from breakfix.brakes import (
    Breaker,
    Emergency,
    Strike,
    open_text,
    over_most,
    stable_from,
    storms_of,
)
from breakfix.cohorts import ChangeAdvice
from breakfix.errors import LedgerError
from breakfix.model import CaseEnd, Decision, HaltLevel, NodeState, Refusal, Step, StepStatus
from breakfix.ports import Answered, Figures, Lease, OpenQuestion, ReviewItem
from breakfix.resilience.rate import reserved


def atomic(method):
    """One call at a time, and nothing of it when it raises: what a transaction is elsewhere."""

    @wraps(method)
    def locked(self, *args, **kwargs):
        if self.is_down:
            raise LedgerError("the ledger is down", is_transient=True)
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


def _newest(*moments):
    return max((m for m in moments if m), default=None)


class FakeLedger:
    """`is_down = True` makes every call fail as an unreachable database does."""

    def __init__(self, cluster="default", *, ledger_id="ledger-1", attempts_window_s=604800.0):
        self.id, self.cluster, self.is_down = ledger_id, cluster, False
        self._window = timedelta(seconds=attempts_window_s)
        self._lock = threading.RLock()
        self._cases, self._since, self._leases = {}, {}, defaultdict(dict)
        self._steps, self._attempt_of, self._approvals = {}, {}, []
        self.role, self._answers = "breakfix", []
        self._halt = HaltLevel.NONE
        self._audit, self._refused = [], {}
        self._states, self._reviews, self._incidents, self._sweeps = {}, {}, {}, []
        self._open_findings = {}  # node -> what the last sweep left open
        self._swept_refusals = set()
        self._advices = []
        self._strikes, self._breakers, self._emergencies = {}, {}, []
        self._labellings, self._reports = [], {}
        self._rates, self.clock = {}, None  # None: the wall's

    # -- rates
    @atomic
    def reserve(self, target, *, count, per_s):
        now = self.clock.now() if self.clock else datetime.now(UTC)
        wait_s, self._rates[target] = reserved(
            self._rates.get(target), now, count=count, per_s=per_s
        )
        return wait_s

    # -- admission
    @atomic
    def admit(self, intent, limits, *, requester, now):
        current = next(
            (c for c in self._cases.values() if c.node == intent.node and c.is_open), None
        )
        no = rules.refuse_by_state(intent, current, self._halt)
        emergency = self._emergency(now)
        for limit in sorted(limits, key=lambda limit: str(limit.scope)):
            no = no or self._refuse_by_breaker(intent, limit, emergency, now)
        for limit in sorted(limits, key=lambda limit: str(limit.scope)):
            no = no or rules.refuse_by_limit(intent, limit, self._leases[limit.scope], emergency)
        if no:
            return self._refuse(no, requester, now)
        if current is None:
            id_ = rules.new_case_id(now)
            case = rules.opened(
                intent, case_id=id_, cluster=self.cluster, requester=requester, now=now
            )
        else:
            case = rules.readmitted(current, intent, requester=requester, now=now)
        for scope in case.scopes:
            self._leases[scope][case.node] = case.id
            if not intent.is_by_hand:
                self._strikes[scope, case.node] = (now, True)
        event = "case.readmitted" if current else "case.admitted"
        told = {"emergency": str(emergency)} if emergency else {}
        self._note(event, case.id, requester, now, node=case.node, plan_hash=case.plan_hash, **told)
        return self._put(case, now)

    def _refuse(self, no, requester, now) -> Refusal:
        key = sweep_rules.refusal_key(no)
        text, seen = self._refused.get(key, ("", now - timedelta(days=1)))
        if text != no.text or now - seen > sweep_rules.QUIET:
            self._note("admission.refused", no.node, requester, now, reason=no.reason, text=no.text)
        self._refused[key] = (no.text, now)
        return no

    # -- cases
    @atomic
    def case(self, case_id):
        if case_id not in self._cases:
            raise LedgerError(f"no case {case_id} of cluster {self.cluster}")
        return self._cases[case_id]

    @atomic
    def cases(self, *, open_only=False, node=None, opened_since=None):
        return tuple(
            c
            for c in sorted(self._cases.values(), key=lambda c: (c.opened_at, c.id))
            if (c.is_open or not open_only)
            and node in {None, c.node}
            and (opened_since is None or c.opened_at >= opened_since)
        )

    @atomic
    def move(
        self,
        case_id,
        fence,
        to,
        *,
        actor,
        reason,
        now,
        deadline=None,
        repaired_at=None,
        detail=None,
    ):
        before = self.case(case_id)
        after = rules.moved(
            before,
            fence,
            to,
            holds_scopes=self._holds(case_id),
            reason=reason,
            now=now,
            deadline=deadline,
            repaired_at=repaired_at,
            detail=detail or {},
        )
        return self._change("case.moved", before, after, actor, now, reason=reason)

    @atomic
    def end_case(self, case_id, fence, end, *, actor, reason, now):
        before = self.case(case_id)
        after = rules.ended(before, fence, end, reason=reason, now=now)
        return self._change("case.ended", before, after, actor, now, reason=reason)

    @atomic
    def climb(self, case_id, fence, rung, *, actor, reason, now):
        before = self.case(case_id)
        after = rules.climbed(before, fence, rung, reason=reason, now=now)
        return self._change("case.climbed", before, after, actor, now, reason=reason)

    @atomic
    def take_over(self, case_id, fence, *, actor, reason, now):
        before = self.case(case_id)
        after = rules.taken_over(before, fence, now=now)
        return self._change("case.taken_over", before, after, actor, now, reason=reason)

    @atomic
    def hold(self, case_id, *, actor, reason, now):
        before = self.case(case_id)
        after = rules.held(before, actor=actor, now=now)
        return self._change("case.held", before, after, actor, now, reason=reason)

    @atomic
    def unhold(self, case_id, *, actor, reason, now):
        before = self.case(case_id)
        return self._change(
            "case.unheld", before, rules.unheld(before, now=now), actor, now, reason=reason
        )

    @atomic
    def reopen(self, case_id, *, actor, reason, now):
        before = self.case(case_id)
        newest = self.cases(node=before.node)[-1]
        after = rules.reopened(before, newest=newest, reason=reason, now=now)
        for scope in after.scopes:
            self._leases[scope][after.node] = after.id
        self._note("case.reopened", after.id, actor, now, reason=reason)
        return self._put(after, now)

    @atomic
    def leases(self):
        taken = [
            Lease(scope, node, case_id, self._cases[case_id].updated_at)
            for scope, held in self._leases.items()
            for node, case_id in held.items()
        ]
        return tuple(sorted(taken, key=lambda x: (x.scope.kind, x.scope.value, x.node)))

    @atomic
    def mend_leases(self, *, actor, now):
        drift = rules.lease_drift(self.cases(open_only=True), self.leases())
        for lease in drift.wrong:
            del self._leases[lease.scope][lease.node]
        for lease in drift.missing:
            self._leases[lease.scope][lease.node] = lease.case_id
        if drift.told():
            self._note("leases.mended", self.cluster, actor, now, changes=drift.told())
        return drift.told()

    def _holds(self, case_id):
        return any(case_id in held.values() for held in self._leases.values())

    def _change(self, event, before, after, actor, now, **detail):
        if after is before:
            return before
        if rules.frees_scopes(after):
            for held in self._leases.values():
                held.pop(after.node, None)
        self._note(event, after.id, actor, now, **detail)
        return self._put(after, now)

    def _put(self, case, now):
        before = self._cases.get(case.id)
        if before is None or before.state is not case.state:
            self._since[case.id] = now
        self._cases[case.id] = replace(case, detail=chain.plain(case.detail))
        return self._cases[case.id]

    # -- steps
    @atomic
    def begin_step(self, case_id, fence, name, *, detail, now):
        case = self.case(case_id)
        rules.check_fence(case, fence)
        if (case_id, name) in self._steps:
            return self._steps[case_id, name], False
        step = Step(case_id, fence, name, StepStatus.DISPATCHED, now, None, chain.plain(detail))
        self._steps[case_id, name] = step
        self._attempt_of[case_id, name] = case.attempt
        self._note("step.begun", case_id, f"{case_id}.{fence}", now, step=name, detail=detail)
        return step, True

    @atomic
    def finish_step(self, case_id, fence, name, status, *, detail, now):
        rules.check_fence(self.case(case_id), fence)
        before = self._steps.get((case_id, name))
        after = rules.finished(before, name, status, detail=chain.plain(detail), now=now)
        if after is not before:
            event = "step.finished" if after.ended_at else "step.noted"
            self._note(event, case_id, f"{case_id}.{fence}", now, step=name, status=status)
        self._steps[case_id, name] = after
        return after

    @atomic
    def steps(self, case_id):
        return tuple(s for (owner, _), s in self._steps.items() if owner == case_id)

    # -- approvals
    @atomic
    def ask(self, case_id, fence, purpose, *, plan_hash, expires_at, now, needed=1):
        rules.check_fence(self.case(case_id), fence)
        last = self._question(case_id, fence, purpose, plan_hash)
        if last is not None:
            kept = approval_rules.standing(last, fence=fence, needed=needed, now=now)
            if kept is last:
                return last
            if kept is not None and kept.decision is Decision.PENDING:
                self._approvals[self._approvals.index(last)] = kept
                self._note("approval.asked", case_id, f"{case_id}.{fence}", now, purpose=purpose)
                return kept
            if kept is not None:
                self._settle(last, kept, "breakfix", now)
        asked = approval_rules.asked(
            case_id,
            fence,
            purpose,
            plan_hash=plan_hash,
            expires_at=expires_at,
            now=now,
            needed=needed,
        )
        self._approvals.append(asked)
        self._note("approval.asked", case_id, f"{case_id}.{fence}", now, purpose=purpose)
        return asked

    @atomic
    def answer(self, case_id, fence, purpose, answers, *, plan_hash, settle, now):
        case = self.case(case_id)
        rules.check_fence(case, fence)
        before = approval_rules.require_asked(self._question(case_id, fence, purpose, plan_hash))
        answers = [given_answers.storable(a) for a in answers]
        counted, fresh = approval_rules.new_answers(answers, self._given_to(before))
        settlement = settle(case, before, (*counted, *fresh))
        after = approval_rules.settled(before, settlement, now=now)
        objections = settlement.objections[len(counted) :]
        for answer, objection in zip(fresh, objections, strict=True):
            given = replace(approval_rules.recorded(before, answer, objection), role=self.role)
            self._answers.append(given)
            actor = answer.approver or answer.channel
            self._note(given_answers.EVENT, case_id, actor, now, **approval_rules.told(given))
        if after is not before:
            actor = settlement.approver or settlement.channel or "breakfix"
            self._settle(before, after, actor, now)
        told = approval_rules.objections_to(answers, self._given_to(before))
        return Answered(after, told, settlement.yes)

    def _given_to(self, question):
        key = (question.case_id, question.purpose, question.asked_at)
        return [g for g in self._answers if (g.case_id, g.purpose, g.asked_at) == key]

    @atomic
    def answers(self, case_id):
        return tuple(g for g in self._answers if g.case_id == case_id)

    @atomic
    def questions(self):
        return tuple(
            a
            for a in self._approvals
            if (case := self._cases[a.case_id]).is_open
            and a.decision is Decision.PENDING
            and (a.fence, a.plan_hash) == (case.fence, case.plan_hash)
        )

    @atomic
    def approvals(self, case_id):
        return tuple(a for a in self._approvals if a.case_id == case_id)

    def _question(self, case_id, fence, purpose, plan_hash):
        found = [
            a
            for a in self._approvals
            if a.case_id == case_id and approval_rules.follows(a, purpose, plan_hash, fence)
        ]
        return found[-1] if found else None

    def _settle(self, before, after, actor, now):
        self._approvals[self._approvals.index(before)] = after
        self._note("approval.decided", before.case_id, actor, now, decision=after.decision)

    # -- what sweeps leave
    @atomic
    def record_sweep(self, judgement, plan, *, actor, now):
        left = sweep_rules.left_by(judgement, plan)
        changes = []
        for node, state in left.states.items():
            if node not in self._states or self._states[node][0] is not state:
                self._states[node] = (state, now)
                changes.append(node)
        self._open_findings |= left.open_findings
        changes += left.refusals.keys() ^ self._swept_refusals
        self._swept_refusals = set(left.refusals)
        changes += left.incidents.keys() ^ self._incidents.keys()
        self._incidents = dict(left.incidents)
        changes += self._sweep_reviews(left, now)
        if changes:
            self._note("sweep.changed", self.cluster, actor, now, plan_hash=plan.hash)
        self._sweeps.append((judgement, plan))
        return f"sweep-{len(self._sweeps)}"

    def _sweep_reviews(self, left, now):
        known = {(i.node, i.topic): n for n, i in self._reviews.items() if i.closed_at is None}
        in_force = self.labellings(standing_at=now)
        change = review_rules.queue_change(known, left.reviews, left.silent, in_force, now=now)
        for number in change.closed.values():
            self._reviews[number] = replace(self._reviews[number], closed_at=now)
        for (node, topic), item in sorted(change.opened.items()):
            number = len(self._reviews) + 1
            detail = chain.plain(item.detail)
            self._reviews[number] = ReviewItem(
                number, now, node, chain.storable(item.reason), detail, now, topic=topic
            )
        for number, item in change.renewed.items():
            before = self._reviews[number]
            self._reviews[number] = replace(
                before,
                reason=chain.storable(item.reason),
                detail=chain.plain(item.detail),
                last_seen=now,
                times_seen=before.times_seen + 1,
            )
        return [*change.opened, *change.closed]

    @atomic
    def node_records(self, *, now=None):
        since = (now or datetime.now(UTC)) - self._window
        nodes = self._states.keys() | {c.node for c in self._cases.values()}
        return {node: self._record(node, since) for node in nodes}

    def _record(self, node, since):
        cases = [c for c in self.cases() if c.node == node]
        ids = {c.id for c in cases}
        repairs = {
            (s.case_id, self._attempt_of[s.case_id, s.name], s.name)
            for s in self._steps.values()
            if s.case_id in ids and s.name.startswith(rules.REPAIR_STEP) and s.started_at > since
        }
        classes = {case_id: self._cases[case_id].failure_class for case_id, _, _ in repairs}
        return sweep_rules.node_record(
            node,
            swept=self._states.get(node),
            open_findings=self._open_findings.get(node, ()),
            last=cases[-1] if cases else None,
            last_state_since=self._since[cases[-1].id] if cases else None,
            evidence_floor=_newest(
                *(c.repaired_at for c in cases),
                *(c.ended_at for c in cases if c.end in sweep_rules.ANSWERED),
            ),
            last_ended_at=_newest(*(c.ended_at for c in cases)),
            overridden_at=_newest(*(c.ended_at for c in cases if c.end is CaseEnd.OVERRIDDEN)),
            attempts_by_class=rules.attempts_by_class(repairs, classes),
            repairs=rules.repairs_by_rung(repairs),
        )

    @atomic
    def reviews(self, *, open_only=True):
        return tuple(
            replace(i, answers=self._said(review_id=i.id))
            for i in self._reviews.values()
            if i.closed_at is None or not open_only
        )

    # -- what people say of it
    @atomic
    def answer_review(self, review_id, label, *, actor, note, failure_class, until, now):
        if review_id not in self._reviews:
            raise LedgerError(f"no review item {review_id} of cluster {self.cluster}")
        item = self._reviews[review_id]
        said = review_rules.Said(label, actor, note, failure_class, until, now)
        self._label(review_rules.review_labelling(item, said))
        return replace(item, answers=self._said(review_id=review_id))

    @atomic
    def label_case(self, case_id, label, *, actor, note, failure_class, now):
        said = review_rules.Said(label, actor, note, failure_class, None, now)
        return self._label(review_rules.case_labelling(self.case(case_id), said))

    def _label(self, labelling):
        mine = self._said(review_id=labelling.review_id, case_id=labelling.case_id)
        before = mine[-1] if mine else None
        if review_rules.is_same_word(before, labelling):
            return before
        stored = replace(labelling, id=len(self._labellings) + 1)
        self._labellings.append(stored)
        subject = labelling.case_id or labelling.node
        detail = labellings.told(stored, before)
        self._note(labellings.event_of(stored), subject, stored.actor, stored.at, **detail)
        return stored

    def _said(self, *, review_id=None, case_id=""):
        wanted = (review_id, case_id)
        return tuple(a for a in self._labellings if (a.review_id, a.case_id) == wanted)

    @atomic
    def labellings(self, *, standing_at=None):
        if standing_at is None:
            return tuple(self._labellings)
        last = review_rules.latest(self._labellings)
        return tuple(
            a
            for number, a in last.items()
            if self._reviews[number].closed_at is None or (a.until and a.until > standing_at)
        )

    # -- what is learned from it
    @atomic
    def store_report(self, day, body, *, actor, now):
        if day in self._reports:
            return False
        self._reports[day] = chain.plain(body)
        detail = learning_reports.told(day, body)
        self._note(learning_reports.EVENT, self.cluster, actor, now, **detail)
        return True

    @atomic
    def reports(self, *, limit=30):
        return tuple(self._reports[day] for day in sorted(self._reports, reverse=True)[:limit])

    # -- changes
    @atomic
    def record_advice(self, scope, advice, *, reason, nodes, detail, actor, now):
        before = self._open_advice(scope)
        made = ChangeAdvice(
            before.id if before else len(self._advices) + 1,
            scope,
            advice,
            reason,
            frozenset(nodes),
            chain.plain(detail),
            before.first_seen if before else now,
            now,
        )
        if before is None or before.advice is not advice:
            told = {"advice": advice, "reason": reason, "nodes": sorted(nodes)}
            self._note("change.advised", scope, actor, now, **told)
        self._advices[made.id - 1 :] = [made, *self._advices[made.id :]]
        return made

    @atomic
    def close_advice(self, scope, *, actor, reason, now):
        before = self._open_advice(scope)
        if before is not None:
            self._advices[before.id - 1] = replace(before, closed_at=now)
            self._note("change.closed", scope, actor, now, advice=before.advice, reason=reason)

    def _open_advice(self, scope):
        found = [a for a in self._advices if a.scope == scope and a.closed_at is None]
        return found[0] if found else None

    @atomic
    def advices(self, *, open_only=True):
        return tuple(a for a in self._advices if a.closed_at is None or not open_only)

    # -- storms
    def _refuse_by_breaker(self, intent, limit, emergency, now):
        rule = rules.heeded_breaker(limit, emergency)
        if rule is None:
            return None
        before = self._breakers.get(rule.scope, Breaker(rule.scope))
        storms = self.storms(since=now - timedelta(days=99))
        last = storms.last_strike(rule.scope)
        if not before.is_open:
            over = over_most(rule, len(storms.nodes(rule, now) | {intent.node}))
            if not over:
                return None
            why = f"{over}, {intent.node} with them"
            before = self._open(before, why, "admission", now)
        return rules.refuse_by_breaker(intent, limit, open_text(rule, before, last))

    def _open(self, before, why, actor, now):
        return self._turn("breaker.opened", replace(before, opened_at=now, reason=why), actor, now)

    def _close(self, event, before, why, actor, now):
        after = replace(before, opened_at=None, counts_from=now)
        return self._turn(event, after, actor, now, why)

    def _turn(self, event, after, actor, now, why=""):
        self._breakers[after.scope] = after
        self._note(event, str(after.scope), actor, now, reason=why or after.reason)
        return after

    @atomic
    def storms(self, *, since):
        found = [Strike(s, n, at) for (s, n), (at, _) in self._strikes.items() if at > since]
        sick = {n for (_, n), (_, is_sick) in self._strikes.items() if is_sick}
        return storms_of(self._breakers.values(), found, sick)

    @atomic
    def watch_storms(self, limits, sick, well, *, actor, now):
        known = self.storms(since=now).sick
        new = {n: scopes for n, scopes in sick.items() if n not in known}
        for node, scopes in new.items():
            self._strikes |= {(s, node): (now, True) for s in scopes}
        for (scope, node), (at, _) in self._strikes.items():
            if node in known & well:
                self._strikes[scope, node] = (at, False)
        concerned = {b.scope for b in self._breakers.values() if b.is_open}
        concerned |= {s for scopes in new.values() for s in scopes}
        settled = (self._settle_one(limits[s], actor, now) for s in concerned if s in limits)
        return tuple(b for b in sorted(settled, key=str) if b is not None)

    def _settle_one(self, rule, actor, now):
        before = self._breakers.get(rule.scope, Breaker(rule.scope))
        storms = self.storms(since=now - timedelta(days=99))
        if before.is_open:
            if now < stable_from(rule, before.opened_at, storms.last_strike(rule.scope)):
                return None
            return self._close("breaker.closed", before, "stable", actor, now)
        over = over_most(rule, len(storms.nodes(rule, now)))
        return self._open(before, over, actor, now) if over else None

    @atomic
    def reset_breaker(self, scope, *, actor, reason, now):
        if scope not in self._breakers:
            raise LedgerError(f"the breaker of {scope} never opened")
        before = replace(self._breakers[scope], reset_by=actor)
        return self._close("breaker.reset", before, reason, actor, now)

    # -- emergency
    def _emergency(self, now):
        last = self._emergencies[-1] if self._emergencies else None
        return last if last is not None and last.is_in_force(now) else None

    @atomic
    def ask_emergency(self, lifts, *, lasts_s, requester, approver, reason, answer_by, now):
        rules.check_emergency_free(self._emergencies[-1] if self._emergencies else None, now)
        number = len(self._emergencies) + 1
        asked = Emergency(number, lifts, lasts_s, requester, approver, reason, now, answer_by)
        self._emergencies.append(asked)
        return self._tell_emergency("emergency.asked", requester, now)

    @atomic
    def approve_emergency(self, *, approver, now):
        last = self._emergencies[-1] if self._emergencies else None
        asked = rules.approvable(last, approver, now)
        until = now + timedelta(seconds=asked.lasts_s)
        self._emergencies[-1] = replace(asked, approved_at=now, until=until)
        return self._tell_emergency("emergency.approved", approver, now)

    @atomic
    def end_emergency(self, *, actor, reason, now):
        last = self._emergencies[-1] if self._emergencies else None
        if last is None or not (last.is_in_force(now) or last.is_asked(now)):
            return None
        self._emergencies[-1] = replace(last, ended_at=now, ended_by=actor)
        return self._tell_emergency("emergency.ended", actor, now, reason)

    def _tell_emergency(self, event, actor, now, why=""):
        told = rules.told_emergency(self._emergencies[-1], why)
        self._note(event, self.cluster, actor, now, **told)
        return self._emergencies[-1]

    @atomic
    def emergencies(self, *, limit=10):
        return tuple(reversed(self._emergencies[-limit:]))

    # -- figures
    @atomic
    def figures(self):
        open_now = {c.id: c for c in self.cases(open_only=True)}
        return Figures(
            swept_at=self._sweeps[-1][0].at if self._sweeps else None,
            refusals=Counter(key[1] for key in self._swept_refusals),
            leases={s: len(held) for s, held in self._leases.items() if held},
            steps=tuple(
                s
                for s in self._steps.values()
                if s.case_id in open_now and s.status is StepStatus.DISPATCHED
            ),
            questions=tuple(
                OpenQuestion(a.case_id, a.purpose, a.asked_at, a.expires_at)
                for a in self._approvals
                if a.decision is Decision.PENDING
                and a.case_id in open_now
                and open_now[a.case_id].fence == a.fence
            ),
            reviews=sum(i.closed_at is None for i in self._reviews.values()),
            incidents=len(self._incidents),
            head=self.head(),
        )

    # -- kill switch
    @atomic
    def halt_level(self):
        return self._halt

    @atomic
    def set_halt(self, level, *, actor, reason, now):
        self._halt = level
        self._note("halt.set", self.cluster, actor, now, level=level, reason=reason)

    # -- audit
    @atomic
    def audit(self, event, subject, *, actor, detail, now):
        self._note(event, subject, actor, now, **detail)

    def _note(self, event, subject, actor, now, /, **detail):
        self._audit.append(
            chain.seal(
                self.head(), at=now, actor=actor, event=event, subject=subject, detail=detail
            )
        )

    @atomic
    def audit_entries(self, *, after=0, limit=1000):
        return tuple(e.opened() for e in self._audit[after : after + limit])

    @atomic
    def head(self):
        return (self._audit[-1].seq, self._audit[-1].hash) if self._audit else (0, chain.GENESIS)

    @atomic
    def verify_audit(self):
        return chain.first_fault(self._audit, self.head())

    # -- for tests only
    def put_state(self, node, state: NodeState, *, since):
        """Make a node known in that state, as a sweep would."""
        self._states[node] = (state, since)
