"""What a validation is worth: whether it is complete, how old, and whether the node is still so."""

from __future__ import annotations

from datetime import datetime

from breakfix.act import guard
from breakfix.flow.assessment import assess
from breakfix.flow.gates import gpus_due, step_of
from breakfix.flow.guarding import RECOVERY, acting
from breakfix.flow.load_checks import BANDWIDTHS, PROVED_AT, diag_levels, diag_word, last_try
from breakfix.flow.services import Services
from breakfix.model import Case, Outcome, Step, StepStatus
from breakfix.verify import gpus_outcome, signals_outcome

_PASSED = frozenset({StepStatus.VERIFIED, StepStatus.DONE})  # done: not run, and it may be so


def required_signals(services: Services) -> frozenset[str]:
    """The signals without which a node cannot be called clear; opt-in fields nobody collects are
    not among them.
    """
    return frozenset(s.name for s in services.policy.signals if s.is_required)


def doubt_about_return(services: Services, case: Case) -> str:
    """Why a validation of this fence does not carry a return now; an empty string when it does.

    Hours may lie between the validation and the answer: evidence grows old, and a node can break
    meanwhile.
    """
    node = guard.check(acting(services), case, "return", RECOVERY)
    proof = proof_at_this_fence(services, case)
    proved = proved_at(proof)
    if proof is None or proved is None:
        return "the node was not validated at this fence"
    if not node.boot_id or proof.detail.get("boot_id") != node.boot_id:
        return "the node has rebooted since its validation"
    age_s = (services.clock.now() - proved).total_seconds()
    if age_s > services.policy.timing.evidence_max_age_s:
        return f"the validation is {age_s:.0f} s old"
    expected = gpus_due(services, case, node)
    if gpus_outcome(node, expected) is not Outcome.FIXED:
        unready = "" if node.is_ready else ", the node is not Ready"
        return f"{node.gpus_allocatable} of {expected} GPUs allocatable{unready}"
    verdict = assess(services).judgement.verdict(case.node)
    if signals_outcome(verdict, required=required_signals(services)) is not Outcome.FIXED:
        return verdict.reason if verdict else "the node was not judged"
    return ""


def proved_at(proof: Step | None) -> datetime | None:
    """When the proof was made, which is not when it was read; None where there is none."""
    if proof is None:
        return None
    text = proof.detail.get(PROVED_AT)
    return datetime.fromisoformat(str(text)) if text else proof.ended_at


def proof_at_this_fence(services: Services, case: Case) -> Step | None:
    """The highest diagnostic of a validation of which every check was passed at this fence; None
    while one is missing, whatever task led here. The proof is as old as that diagnostic.
    """
    diags = [last_try(services, case, diag_word(x)) for x in diag_levels(services, case)]
    found = [step_of(services, case, w) for w in ("check_gpus", "check_operator", "check_signals")]
    found += [last_try(services, case, kind.value) for kind in BANDWIDTHS]
    if any(s is None or s.status not in _PASSED for s in found):
        return None
    if any(s is None or s.status is not StepStatus.VERIFIED for s in diags):
        return None
    return diags[-1]
