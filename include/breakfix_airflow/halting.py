"""The kill switch from Airflow's page: the ledger's, under the name that Airflow authenticated."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from breakfix.act.guard import halt_level
from breakfix.adapters.clock import SystemClock
from breakfix.model import HaltLevel
from breakfix.ports import Cluster, Ledger
from breakfix_airflow.identity import person, requester
from breakfix_airflow.services import services

_LEVELS = tuple(HaltLevel)  # the mildest first
_HOLDS_FOR = timedelta(minutes=10)  # as long as a run of the DAG may last


def set_level(context: Mapping[str, Any]) -> dict[str, Any]:
    """Set the level that the run's params ask for; says what was, what is, and what is in force.

    Anybody, and anything, may halt. To halt less than now takes a person's name.
    """
    params = context["params"]
    level, reason = HaltLevel(params["level"]), str(params["reason"] or "")
    built = services()
    if level is HaltLevel.NONE or _LEVELS.index(level) < _LEVELS.index(built.book.halt_level()):
        _check_word(context)
    namespace = built.settings.namespace
    return write(
        built.book, built.cluster, namespace, level, actor=requester(context), reason=reason
    )


def _check_word(context: Mapping[str, Any]) -> None:
    """Somebody says so, and says it now: a halt may have come while the run was waiting."""
    if not person(context):
        raise AirflowFailException(
            "nobody is named who lets automation go on, as in any run that was cleared:"
            " trigger it yourself, anew"
        )
    said_at = context["dag_run"].run_after
    if SystemClock().now() - said_at > _HOLDS_FOR:
        raise AirflowFailException(
            f"this was said at {said_at:%Y-%m-%d %H:%M} UTC, and its run waited since:"
            " look whether it holds still, and trigger a new one"
        )


def write(
    ledger: Ledger, cluster: Cluster, namespace: str, level: HaltLevel, *, actor: str, reason: str
) -> dict[str, Any]:
    """The ledger's switch; the cluster's is only read."""
    before = ledger.halt_level()
    ledger.set_halt(level, actor=actor, reason=reason, now=SystemClock().now())
    return {
        "before": str(before),
        "level": str(level),
        "in_force": str(halt_level(cluster, ledger, namespace)),
        "by": actor,
    }
