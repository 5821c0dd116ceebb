"""Emergencies by Airflow's own page: who asks and who approves is whom Airflow authenticated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from breakfix.brakes import Emergency, Lift
from breakfix.errors import Refused
from breakfix_airflow.identity import person
from breakfix_airflow.services import services

if TYPE_CHECKING:
    from breakfix.flow.services import Services

ACTIONS = ("start", "approve", "end")


def carry_out(context: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's params ask for; says what is asked or in force now. A no fails for good."""
    who = person(context)
    if not who:
        raise AirflowFailException(
            "nobody is named, as in any run that was cleared: trigger it yourself, anew"
        )
    built = services()
    try:
        made = _act(built, who, context["params"])
    except Refused as e:
        raise AirflowFailException(f"refused: {e}") from e
    return {"by": who, "emergency": str(made) if made else "there was no emergency"}


def _act(built: Services, who: str, params: Mapping[str, Any]) -> Emergency | None:
    from breakfix.flow import brakes

    match params["action"]:
        case "start":
            return brakes.ask_emergency(
                built,
                frozenset(Lift(name) for name in params["lift"]),
                lasts_s=60.0 * float(params["minutes"]),
                requester=who,
                approver=str(params["approver"]),
                reason=str(params["reason"]),
            )
        case "approve":
            return brakes.approve_emergency(built, approver=who)
        case _:
            return brakes.end_emergency(built, actor=who, reason=str(params["reason"]))
