"""The kill switch from Airflow's page: the ledger's, under the name that Airflow authenticated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from breakfix.act.guard import halt_level
from breakfix.adapters.clock import SystemClock
from breakfix.model import HaltLevel
from breakfix.ports import Cluster, Ledger
from breakfix_airflow.identity import requester
from breakfix_airflow.services import services


def set_level(context: Mapping[str, Any]) -> dict[str, Any]:
    """Set the level that the run's params ask for; says what was, what is, and what is in force.

    Anybody, and anything, may halt. To let automation go on takes a person's name.
    """
    params = context["params"]
    level, reason = HaltLevel(params["level"]), str(params["reason"] or "")
    who = context["dag_run"].triggering_user_name
    if level is HaltLevel.NONE and not who:
        raise AirflowFailException("nobody is named who lets automation go on: trigger it yourself")
    built = services()
    namespace = built.settings.namespace
    return write(
        built.book, built.cluster, namespace, level, actor=requester(context), reason=reason
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
