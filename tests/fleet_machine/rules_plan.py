"""What must be so of every plan that is made, and of every admission; "" when a rule is kept.

A plan is compared with the very observation that it was made of, by arithmetic of our own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from breakfix.model import Action, HaltLevel, NodeState, Refusal, Scope, ScopeKind
from tests.fleet_machine import truth
from tests.fleet_machine.journal import CASE
from tests.fleet_machine.rules_act import free_gpus, full_scope

FLEET = Scope(ScopeKind.FLEET, "")


@dataclass
class Proposal:
    """One intent, what the task had read of the world by then, and what was proposed before it."""

    intent: Any
    task: Any
    at: Any
    earlier: set[str]
    used: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))

    @property
    def node(self):
        return next(n for n in self.task.fleet if n.name == self.intent.node)

    @property
    def _remembered(self):
        """What a sweep knew of the ledger when it planned; it may have read more since."""
        t = self.task
        is_sweep = t.remembered is not None and not self.is_by_person
        return t.remembered if is_sweep else (t.cases, t.records, t.halts)

    @property
    def cases(self):
        return self._remembered[0]

    @property
    def records(self):
        return self._remembered[1]

    @property
    def halts(self):
        return self._remembered[2]

    @property
    def fleet(self):
        return [n for n in self.task.fleet if truth.is_gpu_node(n)]

    @property
    def is_by_person(self):
        return self.intent.is_by_hand

    def pods(self, name):
        return [p for p in self.task.pods.values() if p.node == name]

    def case(self):
        open_cases = [c for c in self.cases.values() if c.is_open]
        return next((c for c in open_cases if c.node == self.node.name), None)


def _goes(pod):
    """A drain evicts it: not of a DaemonSet, not ours."""
    if CASE in pod.labels or pod.is_finished:
        return False
    return not any(o.kind == "DaemonSet" for o in pod.owners)


def no_plan_under_halt(world, p):
    levels = set(p.halts.values()) - {HaltLevel.NONE}
    return f"the switch is at {min(levels)}" if levels else ""


def no_plan_beyond_its_mode(world, p):
    mode = p.task.site.modes.get(str(p.intent.failure_class), "recommend")
    return "" if p.is_by_person or mode in {"approve", "auto"} else f"its mode is {mode}"


def no_plan_for_protected(world, p):
    return "it is protected" if truth.is_protected(p.node, p.task.pods.values()) else ""


def no_plan_for_excluded(world, p):
    return "it is excluded" if truth.is_excluded(p.node) else ""


def no_plan_for_others_nodes(world, p):
    return truth.hands_on(p.node)


def no_plan_over_a_foreign_cordon(world, p):
    is_ours = p.node.annotations.get("breakfix.dev/cordoned-by-us") == "true"
    return "others have cordoned it" if p.node.is_unschedulable and not is_ours else ""


def no_plan_for_what_was_taken_back(world, p):
    at = world.truth.taken_back.get(p.node.name)
    is_held = truth.is_at(at, p.at, p.task.site.override_hold_s)
    return "a person took it back" if is_held and not p.is_by_person else ""


def no_plan_on_one_source(world, p):
    if p.is_by_person or not p.node.is_ready or p.node.gpus_allocatable < p.node.gpus_capacity:
        return ""
    return "nothing but metrics accuses it" if p.node.name in p.task.untied else ""


def no_plan_too_soon(world, p):
    if p.is_by_person or p.case() is not None:
        return ""
    at = world.truth.ended.get(p.node.name)
    is_cooling = truth.is_at(at, p.at, p.task.site.cooldown_s)
    return "its last case has just ended" if is_cooling else ""


def no_plan_beyond_a_limit(world, p):
    """Those proposed before it count, too."""
    out = {n.name for n in p.fleet if truth.is_out(n)} | p.earlier
    out |= {c.node for c in p.cases.values() if c.is_open and c.state in truth.OUT}
    out |= {r.node for r in p.records.values() if r.state is NodeState.ESCALATED}
    for kind, value in truth.kinds_of(p.node):
        members = {n.name for n in p.fleet if (kind, value) in truth.kinds_of(n)}
        others = (out & members) - {p.node.name}
        most = truth.most_out(p.task.site.out, kind, len(members))
        if len(others) + 1 > most:
            return f"{kind}={value}: {sorted(others)} are out, {most} may be"
    return ""


def no_plan_without_headroom(world, p):
    free = free_gpus(p.task, p.node, p.cases.values(), p.records.values(), p.earlier)
    return "" if free >= p.task.site.headroom else f"{free} GPUs would be free"


def no_plan_over_pods_that_stay(world, p):
    bare = [q.name for q in p.pods(p.node.name) if _goes(q) and not q.owners]
    return f"pod {bare[0]} may not be evicted" if bare else ""


def no_plan_over_a_closed_budget(world, p):
    """Counting what the nodes proposed before it use up."""
    for pod in p.pods(p.node.name):
        if not _goes(pod) or not pod.is_ready or pod.is_terminating:
            continue
        for budget in p.task.budgets:
            match = budget.selector["matchLabels"].items() <= pod.labels.items()
            key = (budget.namespace, budget.name)
            if budget.namespace == pod.namespace and match and budget.allowed <= p.used[key]:
                return f"budget {budget.name} allows nothing"
    return ""


def no_plan_outside_hours(world, p):
    return "" if truth.is_in_hours(p.task.site, p.at) else f"it is {p.at:%H:%M}"


def no_plan_under_an_alert(world, p):
    return truth.alert_over(p.task.site, p.task.firing, p.node)


def no_plan_in_a_storm(world, p):
    """An open breaker, or one that this node would open: those struck within the hour count."""
    site, storms = p.task.site, p.task.storms
    if site.storm is None or storms is None:
        return ""
    breaker = storms.breaker(FLEET)
    if breaker.is_open:
        return "the breaker is open"
    since = max(p.at - timedelta(hours=1), breaker.counts_from or p.at - timedelta(hours=1))
    struck = {s.node for s in storms.strikes.get(FLEET, ()) if s.at > since}
    struck |= {p.node.name} | p.earlier
    return f"{sorted(struck)} within the hour" if len(struck) > site.storm else ""


def no_plan_that_nobody_can_do(world, p):
    is_power = p.intent.action is Action.POWER_CYCLE
    return "nobody switches power" if is_power and not world.providers else ""


def no_plan_for_a_busy_node(world, p):
    case = p.case()
    if case is not None and (p.is_by_person or case.state is not NodeState.RETURNING):
        return f"its case is {case.state}"
    record = p.records.get(p.node.name)
    return "it is escalated" if record and record.state is NodeState.ESCALATED else ""


def no_repair_beyond_the_attempts(world, p):
    """Counted by the truth: the repairs that reached this node since the world began."""
    done = {(c, s) for c, s, n in world.truth.repairs if n == p.node.name}
    is_last = p.intent.action in {Action.HOLD_FOR_HARDWARE, Action.DRAIN_ONLY}
    if p.is_by_person or is_last or len(done) < p.task.site.max_attempts:
        return ""
    return f"{len(done)} repairs, and {p.intent.action} is proposed"


def large_gangs_are_asked_about(world, p):
    """A job on several nodes that is larger than policy lets stop needs a yes, auto or not."""
    gang = [q for q in p.task.pods.values() if q.labels.get("app") == "gang" and not q.is_finished]
    is_here = any(q.node == p.node.name for q in gang)
    is_wide = any(q.node not in {"", p.node.name} for q in gang)
    gpus = sum(q.gpus for q in gang)
    if p.intent.action is Action.DRAIN_ONLY or not (is_here and is_wide):
        return ""
    is_large = gpus > p.task.site.gang_gpus
    return f"{gpus} GPUs stop unasked" if is_large and not p.intent.needs_approval else ""


def approve_mode_asks(world, p):
    mode = p.task.site.modes.get(str(p.intent.failure_class), "recommend")
    must = mode == "approve" and p.intent.action is not Action.DRAIN_ONLY
    return "nobody is asked" if must and not p.intent.needs_approval else ""


PLAN_RULES = (
    no_plan_under_halt,
    no_plan_beyond_its_mode,
    no_plan_for_protected,
    no_plan_for_excluded,
    no_plan_for_others_nodes,
    no_plan_over_a_foreign_cordon,
    no_plan_for_what_was_taken_back,
    no_plan_on_one_source,
    no_plan_too_soon,
    no_plan_beyond_a_limit,
    no_plan_without_headroom,
    no_plan_over_pods_that_stay,
    no_plan_over_a_closed_budget,
    no_plan_outside_hours,
    no_plan_under_an_alert,
    no_plan_in_a_storm,
    no_plan_that_nobody_can_do,
    no_plan_for_a_busy_node,
    no_repair_beyond_the_attempts,
    large_gangs_are_asked_about,
    approve_mode_asks,
)


def plan_faults(world, task, intents, at):
    """(rule, text) of everything that is wrong with what is proposed."""
    earlier, used = set(), defaultdict(int)
    for intent in intents:
        p = Proposal(intent, task, at, set(earlier), used)
        for rule in PLAN_RULES:
            text = rule(world, p)
            if text:
                yield rule.__name__, f"{intent.node}: {text}"
        _promise(p)
        earlier.add(intent.node)


def _promise(p):
    for pod in p.pods(p.node.name):
        if not _goes(pod) or not pod.is_ready or pod.is_terminating:
            continue
        for budget in p.task.budgets:
            if budget.selector["matchLabels"].items() <= pod.labels.items():
                p.used[budget.namespace, budget.name] += 1


def admission_faults(world, task, intent, before, outcome):
    """(rule, text) of what is wrong with an admission, at the instant of its transaction.

    `before`: the open case of the node until then.
    """
    if isinstance(outcome, Refusal):
        return
    if world.ledger.halt_level() is not HaltLevel.NONE:
        yield "no_admission_under_halt", intent.node
    others = [c for c in world.ledger.cases(open_only=True) if c.id != outcome.id]
    if any(c.node == intent.node for c in others):
        yield "one_case_a_node", intent.node
    if before is not None and before.held_by:
        yield "no_admission_of_a_held_case", intent.node
    if before is not None and before.state is not NodeState.RETURNING:
        yield "no_admission_of_a_case_at_work", intent.node
    task.cases |= {c.id: c for c in others}  # the ledger is asked in the transaction itself
    for gone in set(task.cases) - {c.id for c in others} - {outcome.id}:
        del task.cases[gone]
    node = next((n for n in task.fleet or () if n.name == intent.node), None)
    full = full_scope(world, task, node)
    if full:
        yield "no_admission_beyond_a_limit", f"{intent.node}: {full}"
