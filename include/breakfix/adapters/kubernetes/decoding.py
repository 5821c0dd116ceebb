"""The API's JSON as typed structs with only the fields we use, and from them to our model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Generic, TypeVar

import msgspec

from breakfix.model import Budget, Condition, Event, Node, Owner, Pod, Taint, Toleration


@dataclass(frozen=True, slots=True)
class FleetLabels:
    """The node labels that mean pool, rack, SKU and fabric domain."""

    pool: str = "breakfix.dev/pool"
    rack: str = "topology.kubernetes.io/rack"
    sku: str = "nvidia.com/gpu.product"
    fabric: str = "nvidia.com/gpu.clique"


class _Struct(msgspec.Struct, rename="camel", gc=False):
    pass


class OwnerReference(_Struct):
    """metadata.ownerReferences[]."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Meta(_Struct):
    """metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    owner_references: list[OwnerReference] | None = None
    finalizers: list[str] | None = None


class KTaint(_Struct):
    """spec.taints[]."""

    key: str
    effect: str
    value: str = ""
    time_added: datetime | None = None


class KCondition(_Struct):
    """status.conditions[]."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class _NodeInfo(_Struct):
    boot_id: str = msgspec.field(default="", name="bootID")
    system_uuid: str = msgspec.field(default="", name="systemUUID")


class _NodeSpec(_Struct):
    unschedulable: bool = False
    taints: list[KTaint] | None = None


class _NodeStatus(_Struct):
    allocatable: dict[str, str] | None = None
    capacity: dict[str, str] | None = None
    conditions: list[KCondition] | None = None
    node_info: _NodeInfo = msgspec.field(default_factory=_NodeInfo)


class KNode(_Struct):
    """A Node."""

    metadata: Meta
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class _Resources(_Struct):
    limits: dict[str, str] | None = None


class _Container(_Struct):
    resources: _Resources | None = None


class _EmptyDir(_Struct):
    medium: str = ""


class _Volume(_Struct):
    empty_dir: _EmptyDir | None = None


class KToleration(_Struct):
    """spec.tolerations[]."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class _Terms(_Struct):
    node_selector_terms: list[dict[str, Any]] | None = None


class _NodeAffinity(_Struct):
    required: _Terms | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class _Affinity(_Struct):
    node_affinity: _NodeAffinity | None = None


class _PodSpec(_Struct):
    node_name: str = ""
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    volumes: list[_Volume] | None = None
    node_selector: dict[str, str] | None = None
    affinity: _Affinity | None = None
    tolerations: list[KToleration] | None = None
    resource_claims: list[msgspec.Raw] | None = None
    termination_grace_period_seconds: int | None = None


class _Terminated(_Struct):
    exit_code: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None


class _Waiting(_Struct):
    reason: str = ""


class _State(_Struct):
    terminated: _Terminated | None = None
    waiting: _Waiting | None = None


class _ContainerStatus(_Struct):
    name: str = ""
    state: _State = msgspec.field(default_factory=_State)
    last_state: _State = msgspec.field(default_factory=_State)


class _PodCondition(_Struct):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class _PodStatus(_Struct):
    phase: str = "Unknown"
    reason: str = ""
    conditions: list[_PodCondition] | None = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None


class KPod(_Struct):
    """A Pod."""

    metadata: Meta
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def exit_code(self) -> int | None:
        """Of the first container; None until it has ended."""
        statuses = self.status.container_statuses or []
        ended = statuses[0].state.terminated if statuses else None
        return ended.exit_code if ended is not None else None


class _Involved(_Struct):
    kind: str = ""
    name: str = ""


class _Source(_Struct):
    component: str = ""


class _Series(_Struct):
    count: int = 0
    last_observed_time: datetime | None = None


class KEvent(_Struct):
    """An Event (core/v1), written the old way (`count`) or the new one (`series`)."""

    involved_object: _Involved = msgspec.field(default_factory=_Involved)
    reason: str = ""
    message: str = ""
    count: int | None = None
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: _Series | None = None
    source: _Source | None = None
    reporting_component: str = ""


class _BudgetSpec(_Struct):
    selector: dict[str, Any] | None = None


class _BudgetStatus(_Struct):
    observed_generation: int = 0
    disruptions_allowed: int = 0


class KBudget(_Struct):
    """A PodDisruptionBudget."""

    metadata: Meta
    spec: _BudgetSpec = msgspec.field(default_factory=_BudgetSpec)
    status: _BudgetStatus = msgspec.field(default_factory=_BudgetStatus)


class KObject(_Struct):
    """Any object of which only the metadata matter."""

    metadata: Meta


class KConfigMap(_Struct):
    """A ConfigMap's text data."""

    data: dict[str, str] | None = None


class _ListMeta(_Struct):
    continue_: str = msgspec.field(default="", name="continue")


T = TypeVar("T")


class Page(msgspec.Struct, Generic[T]):
    """One page of a list; `metadata.continue_` asks for the next one."""

    items: list[T] | None = None
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


def to_node(it: KNode, labels: FleetLabels, gpu_resource: str) -> Node:
    """Our Node of an API node."""
    own = it.metadata.labels or {}
    return Node(
        name=it.metadata.name,
        uid=it.metadata.uid,
        resource_version=it.metadata.resource_version,
        boot_id=it.status.node_info.boot_id,
        system_uuid=it.status.node_info.system_uuid,
        labels=own,
        annotations=it.metadata.annotations or {},
        taints=tuple(
            Taint(t.key, t.effect, t.value, added_at=t.time_added) for t in it.spec.taints or ()
        ),
        conditions=tuple(
            Condition(c.type, c.status, c.reason, c.message, c.last_transition_time)
            for c in it.status.conditions or ()
        ),
        is_unschedulable=it.spec.unschedulable,
        gpus_allocatable=count_of(it.status.allocatable, gpu_resource),
        gpus_capacity=count_of(it.status.capacity, gpu_resource),
        created_at=it.metadata.creation_timestamp,
        pool=own.get(labels.pool, ""),
        rack=own.get(labels.rack, ""),
        sku=own.get(labels.sku, ""),
        fabric=own.get(labels.fabric, ""),
    )


def to_pod(it: KPod, gpu_resource: str) -> Pod:
    """Our Pod of an API pod."""
    meta, spec, status = it.metadata, it.spec, it.status
    conditions = status.conditions or ()
    ended = _last_end(status.container_statuses or ())
    media = [v.empty_dir.medium for v in spec.volumes or () if v.empty_dir is not None]
    return Pod(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        node=spec.node_name,
        phase=status.phase,
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        owners=tuple(
            Owner(o.kind, o.name, o.uid, is_controller=bool(o.controller))
            for o in meta.owner_references or ()
        ),
        gpus=_gpus(spec, gpu_resource),
        is_ready=any(c.type == "Ready" and c.status == "True" for c in conditions),
        is_terminating=meta.deletion_timestamp is not None,
        has_disk_empty_dir=any(not _is_memory(m) for m in media),
        has_memory_empty_dir=any(_is_memory(m) for m in media),
        grace_s=spec.termination_grace_period_seconds,
        node_selector=spec.node_selector or {},
        node_terms=_node_terms(spec),
        tolerations=tuple(
            Toleration(t.key, t.operator or "Equal", t.value, t.effect)
            for t in spec.tolerations or ()
        ),
        claims=len(spec.resource_claims or ()),
        created_at=meta.creation_timestamp,
        reason=status.reason,
        changed_at=max((t for c in conditions if (t := c.last_transition_time)), default=None),
        waiting=next((r for s in status.container_statuses or () if (r := _waits(s))), ""),
        unschedulable=next((c.message or c.reason for c in conditions if _is_unplaced(c)), ""),
        run_s=_run_s(ended),
        ended_at=ended.finished_at if ended else None,
        exit_code=ended.exit_code if ended else 0,
        finalizers=tuple(meta.finalizers or ()),
        stops_by=meta.deletion_timestamp,
        init_waiting=_unfinished_init(status.init_container_statuses or ()),
    )


def _node_terms(spec: _PodSpec) -> tuple[Mapping[str, Any], ...]:
    """The required node affinity; a preference holds nothing."""
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required if affinity else None
    return tuple(required.node_selector_terms or ()) if required else ()


def _unfinished_init(statuses: Iterable[_ContainerStatus]) -> str:
    ends = ((s.name, s.state.terminated) for s in statuses)
    return next((name for name, end in ends if end is None or end.exit_code), "")


def _last_end(statuses: Iterable[_ContainerStatus]) -> _Terminated | None:
    ends = [t for s in statuses for t in (s.state.terminated, s.last_state.terminated) if t]
    return max((t for t in ends if t.finished_at), key=_finished, default=None)


def _finished(ended: _Terminated) -> float:
    return ended.finished_at.timestamp() if ended.finished_at else 0.0


def _run_s(ended: _Terminated | None) -> float | None:
    if ended is None or ended.started_at is None or ended.finished_at is None:
        return None
    return max(0.0, (ended.finished_at - ended.started_at).total_seconds())


def _waits(status: _ContainerStatus) -> str:
    return status.state.waiting.reason if status.state.waiting else ""


def _is_unplaced(condition: _PodCondition) -> bool:
    return condition.type == "PodScheduled" and condition.reason == "Unschedulable"


def to_event(it: KEvent) -> Event:
    """Our Event of an API event; the times are the earliest and latest that it names."""
    last = it.series.last_observed_time if it.series else None
    times = [t for t in (it.first_timestamp, it.event_time, it.last_timestamp, last) if t]
    return Event(
        node=it.involved_object.name,
        reason=it.reason,
        message=it.message,
        count=max(1, it.count or 1, it.series.count if it.series else 1),
        first_at=min(times, default=None),
        last_at=max(times, default=None),
        source=(it.source.component if it.source else "") or it.reporting_component,
    )


def to_budget(it: KBudget) -> Budget:
    """Our Budget of an API PodDisruptionBudget."""
    return Budget(
        namespace=it.metadata.namespace,
        name=it.metadata.name,
        selector=it.spec.selector,
        allowed=it.status.disruptions_allowed,
        is_observed=it.status.observed_generation >= it.metadata.generation,
    )


def taint_body(taint: Taint) -> dict[str, str]:
    """A taint as the API wants it; another owner's timeAdded goes back as it came."""
    body = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        body["value"] = taint.value
    if taint.added_at is not None:
        body["timeAdded"] = taint.added_at.isoformat().replace("+00:00", "Z")
    return body


def count_of(quantities: Mapping[str, str] | None, resource: str) -> int:
    """A whole number of devices; 0 when the resource is not reported, or not as a number."""
    text = (quantities or {}).get(resource, "0")
    factor = 1000 if text.endswith("k") else 1
    try:
        return int(Decimal(text.removesuffix("k")) * factor)
    except (InvalidOperation, ValueError, OverflowError):
        return 0


def _gpus(spec: _PodSpec, resource: str) -> int:
    """What the scheduler counts: the containers' sum, or the largest init container."""
    return max(
        sum(_limit(c, resource) for c in spec.containers or ()),
        max((_limit(c, resource) for c in spec.init_containers or ()), default=0),
    )


def _limit(container: _Container, resource: str) -> int:
    return count_of(container.resources.limits if container.resources else None, resource)


def _is_memory(medium: str) -> bool:
    """`Memory`, and huge pages, which are memory as well."""
    return medium == "Memory" or medium.startswith("HugePages")
