"""One ledger owns a cluster. The cluster names it, in ConfigMap `breakfix-ledger`.

Its keys: `ledger` and `cluster` (the ledger's id, and the name it knows this cluster by), and
`audit_seq` with `audit_hash`: the head of the audit chain when it was last marked. A ledger that
does not have that very entry was restored from a backup, or is another one of the same id.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime

from breakfix.errors import ClusterError, NotFound, Refused
from breakfix.model import RefusalReason
from breakfix.ports import Cluster, Ledger

CONFIG_MAP = "breakfix-ledger"
#: Entries that the mark may lag behind before a check renews it; every finished act renews it, too.
_MARK_EVERY = 20

log = logging.getLogger(__name__)


def check_ownership(cluster: Cluster, ledger: Ledger, namespace: str, *, now: datetime) -> None:
    """Raise Refused (UNOWNED_CLUSTER) unless this ledger owns the cluster.

    A cluster that nobody owns is claimed, but only by a ledger that has no cases yet: one with
    history whose ConfigMap is missing speaks of another cluster, or somebody took it away.
    """
    owner = cluster.config_map(namespace, CONFIG_MAP) or _claim(cluster, ledger, namespace, now)
    seen = _check_owner(owner, ledger, namespace)
    if ledger.head()[0] - seen >= _MARK_EVERY:
        mark_head(cluster, ledger, namespace)


def ownership_problem(cluster: Cluster, ledger: Ledger, namespace: str) -> str:
    """Why this ledger may not act on the cluster, for those who only look; empty when it may."""
    owner = cluster.config_map(namespace, CONFIG_MAP)
    if owner is None:
        return "no ledger owns this cluster yet"
    try:
        _check_owner(owner, ledger, namespace)
    except Refused as e:
        return str(e)
    return ""


def _check_owner(owner: Mapping[str, str], ledger: Ledger, namespace: str) -> int:
    """The marked sequence number of the owner, which must be this ledger with its history."""
    if owner.get("ledger") != ledger.id:
        raise _unowned(
            f"ledger {owner.get('ledger')!r} owns this cluster, not {ledger.id!r}"
            f" (ConfigMap {namespace}/{CONFIG_MAP})"
        )
    if owner.get("cluster") != ledger.cluster:
        raise _unowned(f"this cluster is {owner.get('cluster')!r}, not {ledger.cluster!r}")
    return _check_history(owner, ledger)


def mark_head(cluster: Cluster, ledger: Ledger, namespace: str) -> None:
    """Note the head of the audit chain in the cluster, if it is ours and further than the mark.

    A mark is never lowered: a ledger that lacks the marked entry is refused (UNOWNED_CLUSTER). One
    that fails is made next time.
    """
    seq, digest = ledger.head()
    try:
        owner = cluster.config_map(namespace, CONFIG_MAP) or {}
        if owner.get("ledger") != ledger.id or owner.get("cluster") != ledger.cluster:
            return  # the next check refuses; a mark would only hide it
        if seq <= _check_history(owner, ledger):
            return
        cluster.update_config_map(
            namespace, CONFIG_MAP, {"audit_seq": str(seq), "audit_hash": digest}
        )
    except ClusterError as e:
        log.warning("could not mark the ledger's head in the cluster: %s", e)


def marked_head(cluster: Cluster, namespace: str) -> tuple[int, str] | None:
    """The head of the audit chain as the cluster last saw it; None when it never saw one."""
    owner = cluster.config_map(namespace, CONFIG_MAP) or {}
    seq = owner.get("audit_seq", "")
    return (int(seq), owner.get("audit_hash", "")) if seq.isdigit() else None


def claim_by_hand(
    cluster: Cluster, ledger: Ledger, namespace: str, *, actor: str, reason: str, now: datetime
) -> str:
    """A person's own decision to hand the cluster to this ledger. Returns the former owner's id."""
    former = cluster.config_map(namespace, CONFIG_MAP) or {}
    ledger.audit(
        "cluster.taken_over",
        ledger.cluster,
        actor=actor,
        detail={"from": dict(former), "to": ledger.id, "reason": reason},
        now=now,
    )
    seq, digest = ledger.head()
    data = {
        "ledger": ledger.id,
        "cluster": ledger.cluster,
        "audit_seq": str(seq),
        "audit_hash": digest,
    }
    cluster.ensure_namespace(namespace)
    if not cluster.create_config_map(namespace, CONFIG_MAP, data):
        cluster.update_config_map(namespace, CONFIG_MAP, data)
    return former.get("ledger", "")


def _claim(cluster: Cluster, ledger: Ledger, namespace: str, now: datetime) -> Mapping[str, str]:
    if ledger.cases():
        raise _unowned(
            f"ConfigMap {namespace}/{CONFIG_MAP} is missing, but the ledger has cases of"
            f" {ledger.cluster!r}: is this the right cluster?"
        )
    cluster.ensure_namespace(namespace)
    seq, digest = ledger.head()
    data = {
        "ledger": ledger.id,
        "cluster": ledger.cluster,
        "audit_seq": str(seq),
        "audit_hash": digest,
    }
    if cluster.create_config_map(namespace, CONFIG_MAP, data):
        detail = {"ledger": ledger.id, "uid": cluster.uid()}
        ledger.audit("cluster.claimed", ledger.cluster, actor="breakfix", detail=detail, now=now)
    owner = cluster.config_map(namespace, CONFIG_MAP)
    if owner is None:
        raise NotFound(f"ConfigMap {namespace}/{CONFIG_MAP} went away right after its creation")
    return owner


def _check_history(owner: Mapping[str, str], ledger: Ledger) -> int:
    """The marked sequence number; refuses a ledger that does not know the marked entry."""
    text = owner.get("audit_seq", "0")
    if not text.isdigit():
        raise _unowned(f"ConfigMap {CONFIG_MAP} has no readable audit_seq: {text!r}")
    seq = int(text)
    if seq == 0:
        return 0
    entry = next(iter(ledger.audit_entries(after=seq - 1, limit=1)), None)
    if entry is None or entry.seq != seq or entry.hash != owner.get("audit_hash"):
        raise _unowned(
            f"the ledger does not have audit entry {seq} that the cluster has seen: it was"
            " restored from an older backup, or changed"
        )
    return seq


def _unowned(text: str) -> Refused:
    return Refused(RefusalReason.UNOWNED_CLUSTER, text)
