"""What a validation that was not passed asks for next. It proposes; the limits decide."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from breakfix.model import Action, Outcome
from breakfix.verify.diag import DiagAdvice

#: One reset or reboot more than the one that is proven not to have helped, then hardware (ours,
#: after NVIDIA's severities; gpud: two reboots, then an inspection).
_MOST = 2


class Remedy(StrEnum):
    """The next step after a validation that was not passed; stored with the step."""

    NEXT_RUNG = "next_rung"  # still broken: the class's ladder goes on
    RESET_GPU = "reset_gpu"
    REBOOT_NODE = "reboot_node"
    HOLD_FOR_HARDWARE = "hold_for_hardware"
    PERSON = "person"  # software, plumbing, or nothing can be concluded: no repair is justified

    @property
    def action(self) -> Action | None:
        """The repair it names; None where the ladder or a person decides."""
        return _ACTIONS.get(self)


_ACTIONS = {
    Remedy.RESET_GPU: Action.RESET_GPU,
    Remedy.REBOOT_NODE: Action.REBOOT_NODE,
    Remedy.HOLD_FOR_HARDWARE: Action.HOLD_FOR_HARDWARE,
}


def remedy_of(outcome: Outcome) -> Remedy:
    """For a check that names no cause: not fixed climbs the ladder, cannot tell is a person's."""
    return Remedy.NEXT_RUNG if outcome is Outcome.NOT_FIXED else Remedy.PERSON


def remedy_of_diag(advice: DiagAdvice, done: Sequence[Action]) -> Remedy:
    """By the worst severity of the diagnostic. `done`: the repairs of this case so far.

    Isolate is hardware. Reset asks for one more reset, triage for one more reboot, and what comes
    back after those is hardware too. Config is software: no hardware ticket.
    """
    match advice:
        case DiagAdvice.HARDWARE:
            return Remedy.HOLD_FOR_HARDWARE
        case DiagAdvice.RESET_AGAIN:
            is_tried = done.count(Action.RESET_GPU) >= _MOST
            return Remedy.HOLD_FOR_HARDWARE if is_tried else Remedy.RESET_GPU
        case DiagAdvice.REBOOT:
            is_tried = done.count(Action.REBOOT_NODE) >= _MOST
            return Remedy.HOLD_FOR_HARDWARE if is_tried else Remedy.REBOOT_NODE
        case _:
            return Remedy.PERSON
