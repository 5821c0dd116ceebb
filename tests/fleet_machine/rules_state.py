"""What must be so after every step, whoever did what; and at the end, when all is calm again."""

from __future__ import annotations

import itertools
from datetime import timedelta

from breakfix.model import CaseEnd, Decision, NodeState
from tests.fleet_machine import truth
from tests.fleet_machine.journal import CASE, TAINT

LONGEST = timedelta(hours=25)


def audit_is_whole(world):
    """Every new entry follows the one before it."""
    entries = world.new_entries()
    for before, after in itertools.pairwise(entries):
        if after.previous_hash != before.hash or after.seq != before.seq + 1:
            return f"entry {after.seq} does not follow"
    return ""


def one_case_a_node(world):
    nodes = [c.node for c in world.open_cases()]
    twice = {n for n in nodes if nodes.count(n) > 1}
    return f"two open cases of {sorted(twice)}" if twice else ""


def every_wait_ends(world):
    now = world.clock.now()
    for run in world.road.runs.values():
        if run.wait is None or run.is_over:
            continue
        deadline = run.wait.deadline
        if deadline is None or deadline > now + LONGEST:
            return f"{run.case_id} waits until {deadline}"
    return ""


def every_question_ends(world):
    now = world.clock.now()
    for case in world.open_cases():
        for a in world.ledger.approvals(case.id):
            if a.expires_at is None or a.expires_at > max(now, a.asked_at) + LONGEST:
                return f"a question of {case.id} is open until {a.expires_at}"
    return ""


def nobody_without_a_say_refuses(world):
    """A question is refused by the no of somebody who was heard."""
    for case in world.ledger.cases():
        for a in world.ledger.approvals(case.id):
            if a.decision is Decision.REFUSED and not any(
                (s.case_id, s.purpose, s.is_yes) == (case.id, str(a.purpose), False)
                and world.site.hears(s, case)
                for s in world.truth.said
            ):
                return f"the {a.purpose} of {case.id} was refused by {a.approver}"
    return ""


def every_watch_ends(world):
    watched = [c for c in world.open_cases() if c.state is NodeState.RETURNING]
    endless = [c.id for c in watched if c.deadline is None]
    return f"{endless[0]} is watched for ever" if endless else ""


def others_marks_survive(world):
    for name, node in world.cluster._nodes.items():
        wanted = world.truth.foreign.get(name)
        if wanted is not None and truth.foreign_of(node) != wanted:
            return f"{name}: {wanted} became {truth.foreign_of(node)}"
    return ""


def others_cordons_stay(world):
    for name, owner in world.truth.cordon.items():
        node = world.cluster._nodes.get(name)
        if node is not None and owner == "theirs" and not node.is_unschedulable:
            return f"{name} is schedulable"
    return ""


def nobody_is_out_without_owner(world):
    """A node that we took out belongs to a case, or to the people it was escalated to."""
    lost = [n for n, passes in world.truth.ownerless.items() if passes >= 2]
    return f"{sorted(lost)}: two reconciliations have passed" if lost else ""


def is_ownerless(world, node):
    """Our marks are on it, and no case of it has it out."""
    is_marked = CASE in node.annotations or any(t.key == TAINT for t in node.taints)
    if not is_marked:
        return False
    mine = [c for c in world.ledger.cases(node=node.name) if c.node_uid == node.uid]
    last = mine[-1] if mine else None
    if last is None:
        return True
    return not (last.is_open or last.end is CaseEnd.ESCALATED)


STATE_RULES = (
    audit_is_whole,
    one_case_a_node,
    every_wait_ends,
    every_question_ends,
    nobody_without_a_say_refuses,
    every_watch_ends,
    others_marks_survive,
    others_cordons_stay,
    nobody_is_out_without_owner,
)


# --------------------------------------------------------------------------- at the end


def every_case_ended(world):
    still = [f"{c.id} {c.node} {c.state}" for c in world.open_cases()]
    return f"still open: {still}" if still else ""


def every_node_is_somewhere(world):
    """In service, others', or escalated with people told."""
    for name, node in world.cluster._nodes.items():
        if not node.is_unschedulable or world.truth.cordon.get(name) == "theirs":
            continue
        if name in world.truth.taken_back:
            continue  # a person has it, with whatever they left on it
        mine = world.ledger.cases(node=name)
        is_escalated = bool(mine) and mine[-1].end is CaseEnd.ESCALATED
        if not is_escalated:
            return f"{name} is cordoned, and nobody has it"
    return ""


def escalations_were_told(world):
    told = {subject for subject, _ in world.notifier.told}
    for case in world.ledger.cases():
        if case.end is CaseEnd.ESCALATED and not any(case.node in t for t in told):
            return f"nobody heard of {case.node}"
    return ""


def no_pod_of_ours_waits(world):
    """A pod whose image comes late must not reboot a node whose case is over."""
    over = {c.id for c in world.ledger.cases() if not c.is_open}
    for pod in world.cluster._pods.values():
        if pod.labels.get(CASE) in over and not pod.is_finished:
            return f"{pod.name} may still do its work"
    return ""


def whole_audit_verifies(world):
    return world.ledger.verify_audit()[1]


def scopes_are_free(world):
    leases = getattr(world.ledger, "_leases", {})
    held = [f"{s}: {sorted(h)}" for s, h in leases.items() if h]
    return f"held for ever: {held}" if held else ""


END_RULES = (
    every_case_ended,
    every_node_is_somewhere,
    escalations_were_told,
    no_pod_of_ours_waits,
    whole_audit_verifies,
    scopes_are_free,
)
