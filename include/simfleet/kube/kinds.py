"""The kinds the simulated API serves, as data."""

from __future__ import annotations

from dataclasses import dataclass

ALL_VERBS = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)
STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource: its discovery entry. `group` and `version` name the kind of its body."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind and what is special about it.

    `counts_generations`: metadata.generation grows with the spec. `needs_version_on_update`:
    a PUT without resourceVersion is refused. `creates_on_update`: a PUT of a missing object
    makes it. `delete_returns_object`: DELETE answers the object, not a Status.
    `registry` is the word for the resource in storage errors.
    """

    kind: str
    plural: str
    singular: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    storage_hash: str = ""
    subresources: tuple[Subresource, ...] = ()
    counts_generations: bool = False
    needs_version_on_update: bool = False
    creates_on_update: bool = False
    delete_returns_object: bool = False
    registry: str = ""

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified_plural(self) -> str:
        """`nodes`, `leases.coordination.k8s.io`: how messages name the resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """`Node`, `Lease.coordination.k8s.io`: how messages name the kind."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def has_status(self) -> bool:
        """Whether status is written through its own subresource."""
        return any(sub.name == "status" for sub in self.subresources)


def _status(kind: str) -> Subresource:
    return Subresource("status", kind, STATUS_VERBS)


NODE = Kind(
    kind="Node",
    plural="nodes",
    singular="node",
    namespaced=False,
    short_names=("no",),
    storage_hash="XwShjMxG9Fs=",
    subresources=(_status("Node"),),
    registry="minions",
)
POD = Kind(
    kind="Pod",
    plural="pods",
    singular="pod",
    short_names=("po",),
    categories=("all",),
    storage_hash="xPOwRZ+Yhw8=",
    subresources=(
        Subresource("attach", "PodAttachOptions", ("create", "get")),
        Subresource("binding", "Binding", ("create",)),
        Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
        Subresource("exec", "PodExecOptions", ("create", "get")),
        Subresource("log", "Pod", ("get",)),
        _status("Pod"),
    ),
    counts_generations=True,
    delete_returns_object=True,
)
NAMESPACE = Kind(
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    namespaced=False,
    verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
    short_names=("ns",),
    storage_hash="Q3oi5N2YM8M=",
    subresources=(_status("Namespace"),),
    delete_returns_object=True,
)
CONFIG_MAP = Kind(
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    short_names=("cm",),
    storage_hash="qFsyl6wFWjQ=",
)
SERVICE_ACCOUNT = Kind(
    kind="ServiceAccount",
    plural="serviceaccounts",
    singular="serviceaccount",
    short_names=("sa",),
    storage_hash="pbx9ZvyFpBE=",
    subresources=(
        Subresource("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1"),
    ),
)
EVENT = Kind(
    kind="Event",
    plural="events",
    singular="event",
    short_names=("ev",),
    storage_hash="r2yiGXH7wu8=",
)
NEW_EVENT = Kind(
    kind="Event",
    plural="events",
    singular="event",
    group="events.k8s.io",
    short_names=("ev",),
    storage_hash="r2yiGXH7wu8=",
)
REPLICA_SET = Kind(
    kind="ReplicaSet",
    plural="replicasets",
    singular="replicaset",
    group="apps",
    short_names=("rs",),
    categories=("all",),
    storage_hash="P1RzHs8/mWQ=",
    subresources=(_status("ReplicaSet"),),
    counts_generations=True,
)
DAEMON_SET = Kind(
    kind="DaemonSet",
    plural="daemonsets",
    singular="daemonset",
    group="apps",
    short_names=("ds",),
    categories=("all",),
    storage_hash="dd7pWHUlMKQ=",
    subresources=(_status("DaemonSet"),),
    counts_generations=True,
)
BUDGET = Kind(
    kind="PodDisruptionBudget",
    plural="poddisruptionbudgets",
    singular="poddisruptionbudget",
    group="policy",
    short_names=("pdb",),
    storage_hash="EVWiDmWqyJw=",
    subresources=(_status("PodDisruptionBudget"),),
    counts_generations=True,
)
LEASE = Kind(
    kind="Lease",
    plural="leases",
    singular="lease",
    group="coordination.k8s.io",
    storage_hash="gqkMMb/YqFM=",
    needs_version_on_update=True,
    creates_on_update=True,
)
# Reviews are answered, never stored.
REVIEWS = tuple(
    Kind(
        kind=kind,
        plural=kind.lower() + "s",
        singular=kind.lower(),
        group=group,
        namespaced=False,
        verbs=("create",),
    )
    for kind, group in (
        ("SelfSubjectReview", "authentication.k8s.io"),
        ("TokenReview", "authentication.k8s.io"),
        ("SelfSubjectAccessReview", "authorization.k8s.io"),
    )
)

STORED_KINDS = (
    CONFIG_MAP,
    EVENT,
    NAMESPACE,
    NODE,
    POD,
    SERVICE_ACCOUNT,
    DAEMON_SET,
    REPLICA_SET,
    BUDGET,
    LEASE,
)
SERVED_KINDS = (*STORED_KINDS, NEW_EVENT, *REVIEWS)
BY_NAME = {kind.kind: kind for kind in STORED_KINDS}
BY_RESOURCE = {(kind.group, kind.version, kind.plural): kind for kind in SERVED_KINDS}
# In the order in which a real server lists them.
GROUPS = (
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "policy",
    "coordination.k8s.io",
)
