"""The table of contents: what a DAG, the command line, an API or a test can ask for.

The stages, in their one direction, and where they are put in order:

    observe -> decide -> plan         assessment.assess        looks, changes nothing
    -> admit -> quarantine            sweep.sweep              opens cases within the limits
    -> approve -> act -> verify       case.run_stage           one stage of one case
       drain, repair, validate        draining, repairs, validation
    -> return, watch                  case, sweep
    record                            in each of them, before anybody hears of it

    what a case waits for             waits.over               one look for all cases
    what went astray                  reconcile.reconcile      found and mended
    what a person starts              by_hand                  the same guards, the same admission
"""

from breakfix.flow.assessment import Assessment, assess
from breakfix.flow.case import run_stage, settle_question
from breakfix.flow.reconcile import ReconcileReport, reconcile
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait
from breakfix.flow.sweep import SweepResult, sweep

__all__ = [
    "Assessment",
    "Go",
    "ReconcileReport",
    "Services",
    "Stage",
    "SweepResult",
    "Wait",
    "assess",
    "reconcile",
    "run_stage",
    "settle_question",
    "sweep",
]
