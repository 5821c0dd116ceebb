"""The eviction subresource: what is sent, and what each of its answers means."""

from __future__ import annotations

from typing import Any

from breakfix.adapters.kubernetes.transport import TRANSIENT, Answer, error_of
from breakfix.ports import Eviction


def eviction_body(namespace: str, name: str, uid: str, grace_s: int | None) -> dict[str, Any]:
    """A policy/v1 Eviction of exactly that pod; `grace_s` None leaves the pod its own."""
    options: dict[str, Any] = {"preconditions": {"uid": uid}}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": options,
    }


def eviction_of(answer: Answer, what: str) -> Eviction:
    """The meaning of an answer. Raises Forbidden or ClusterError when it is none of an eviction."""
    if answer.is_ok:
        return Eviction("evicted")
    status = answer.failure()
    told = "; ".join(c.message for c in status.causes if c.message) or status.message
    match answer.status:
        case 404:
            return Eviction("gone", told)
        case 409:
            return Eviction("conflict", told)
        case 429 if any(c.reason == "DisruptionBudget" for c in status.causes):
            # no Retry-After as a rule; a budget that is not counted yet asks for ten seconds
            return Eviction("blocked", told, answer.retry_after_s)
        case 403 if any(c.reason == "NamespaceTerminating" for c in status.causes):
            return Eviction("busy", told)  # its pods are being deleted anyway
        case 500 if "more than one PodDisruptionBudget" in status.message:
            return Eviction("error", told)
        case code if code in TRANSIENT:
            return Eviction("busy", told, answer.retry_after_s)
        case _:
            raise error_of(answer, what)
