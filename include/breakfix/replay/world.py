"""The cluster of a trace at one instant: the `Cluster` port, for reading only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

from breakfix.errors import ClusterError, NotFound
from breakfix.model import Budget, Condition, Event, Node, Owner, Pod, Taint
from breakfix.ports import Eviction, NodePatch
from breakfix.replay.fleet import Fleet, Member, NodeNow, exporter_pod
from breakfix.replay.pods import PodNow, pod_at, pod_history
from breakfix.replay.trace import PodSpec, Trace


class World:
    """Everything the API server would show of the trace, at any time of it."""

    def __init__(self, trace: Trace, fleet: Fleet, origin: datetime) -> None:
        self.trace = trace
        self._fleet = fleet
        self._origin = origin
        self._pods = [(p, pod_history(p, trace)) for p in trace.pods]

    def at(self, time: float) -> ReplayedCluster:
        """The cluster `time` seconds after the first sweep."""
        nodes = [
            self._node(m, state)
            for m in self._fleet.members
            if (state := self._fleet.at(m.name, time)).is_there
        ]
        names = {n.name for n in nodes}
        pods = [
            self._pod(spec, now)
            for spec, history in self._pods
            if (now := pod_at(history, time)) is not None
        ]
        if self.trace.telemetry.exporter_pod and "dcgm" in self.trace.telemetry.exporters:
            pods += [self._exporter(m) for m in self._fleet.members
                     if m.group.is_gpu and m.name in names]  # fmt: skip
        return ReplayedCluster(nodes, pods, self._events(time))

    def _events(self, time: float) -> list[Event]:
        """What had been said of nodes by then; events of pods are no word on a node."""
        return [
            Event(
                e.node, e.reason, e.message, e.count, self._when(e.at), self._when(e.at), e.source
            )
            for e in self.trace.events
            if e.node and e.at <= time
        ]

    def _when(self, time: float) -> datetime:
        return self._origin + timedelta(seconds=time)

    def _node(self, member: Member, now: NodeNow) -> Node:
        group = member.group
        conditions = tuple(
            Condition(kind, c.status, c.reason, c.message, self._when(c.since or 0.0))
            for kind, c in now.conditions.items()
        )
        return Node(
            name=member.name,
            uid=f"uid-{member.name}",
            resource_version=str(now.version),
            boot_id=f"boot-{member.name}-{now.boots}",
            labels=now.labels,
            annotations=now.annotations,
            taints=tuple(Taint(t.key, t.effect, t.value) for t in now.taints),
            conditions=conditions,
            is_unschedulable=now.is_unschedulable,
            gpus_allocatable=now.allocatable,
            gpus_capacity=now.capacity,
            created_at=self._when(-group.created_age),
            pool=now.labels.get("breakfix.dev/pool", ""),
            rack=now.labels.get("topology.kubernetes.io/rack", ""),
            sku=now.labels.get("nvidia.com/gpu.product", ""),
            fabric=now.labels.get("nvidia.com/gpu.clique", ""),
        )

    def _pod(self, spec: PodSpec, now: PodNow) -> Pod:
        kind, _, name = spec.owner.partition("/")
        owners = (Owner(kind, name, f"uid-{kind}-{name}"),) if spec.owner else ()
        return Pod(
            namespace=spec.namespace,
            name=spec.name,
            uid=f"uid-{spec.namespace}-{spec.name}",
            node=now.node,
            phase=now.phase,
            labels=spec.labels,
            annotations=spec.annotations,
            owners=owners,
            gpus=spec.gpus,
            is_ready=now.is_ready,
            created_at=self._when(-self.trace.warmup if spec.start is None else spec.start),
            reason=now.reason,
            changed_at=self._when(now.at),
            waiting=now.waiting,
            unschedulable=now.unschedulable,
            run_s=now.run_s,
            ended_at=None if now.ended_at is None else self._when(now.ended_at),
            exit_code=now.exit_code,
        )

    def _exporter(self, member: Member) -> Pod:
        namespace, name = exporter_pod(member.name)
        owner = Owner("DaemonSet", "nvidia-dcgm-exporter", "uid-dcgm-exporter")
        return Pod(
            namespace, name, f"uid-{name}", node=member.name, owners=(owner,),
            labels={"app": "nvidia-dcgm-exporter"},
        )  # fmt: skip


class ReplayedCluster:
    """A cluster that can be looked at; whatever would change it raises ClusterError."""

    def __init__(
        self, nodes: Sequence[Node], pods: Sequence[Pod], events: Sequence[Event] = ()
    ) -> None:
        self._nodes = {n.name: n for n in nodes}
        self._pods = tuple(pods)
        self._events = tuple(events)

    def uid(self) -> str:
        return "replayed"

    def nodes(self) -> Sequence[Node]:
        return tuple(self._nodes.values())

    def node(self, name: str) -> Node:
        if name not in self._nodes:
            raise NotFound(f"no node {name}")
        return self._nodes[name]

    def pods(self, node: str | None = None) -> Sequence[Pod]:
        return self._pods if node is None else tuple(p for p in self._pods if p.node == node)

    def pod(self, namespace: str, name: str) -> Pod:
        found = [p for p in self._pods if (p.namespace, p.name) == (namespace, name)]
        if not found:
            raise NotFound(f"no pod {namespace}/{name}")
        return found[0]

    def budgets(self) -> Sequence[Budget]:
        return ()

    def daemon_sets(self) -> frozenset[tuple[str, str]]:
        return frozenset({("gpu-operator", "nvidia-device-plugin-daemonset")})

    def node_events(self) -> Sequence[Event]:
        return self._events

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        return None

    def patch_node(self, name: str, resource_version: str, patch: NodePatch) -> Node:
        _refuse()

    def evict(
        self, namespace: str, name: str, uid: str, *, grace_s: int | None, dry_run: bool = False
    ) -> Eviction:
        _refuse()

    def delete_pod(self, namespace: str, name: str, uid: str, *, grace_s: int | None) -> bool:
        _refuse()

    def mark_pod(
        self,
        namespace: str,
        name: str,
        uid: str,
        *,
        annotations: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> bool:
        _refuse()

    def create_pod(self, manifest: Mapping[str, Any]) -> Pod:
        _refuse()

    def pod_log(self, namespace: str, name: str, *, limit_bytes: int = 1 << 20) -> str:
        _refuse()

    def pod_exit_code(self, namespace: str, name: str) -> int | None:
        _refuse()

    def post_event(self, node: Node, *, reason: str, message: str, is_warning: bool) -> None:
        _refuse()

    def create_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> bool:
        _refuse()

    def update_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        _refuse()

    def ensure_namespace(self, name: str) -> None:
        _refuse()


def _refuse() -> NoReturn:
    raise ClusterError("a replayed cluster cannot be changed: only observe and decide run on it")
