"""The kubelets of all nodes: they run pods, end them, and report on their machines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from simfleet.clock import Clock
from simfleet.kube import deletion, podstate
from simfleet.kube.deletion import FINISHED
from simfleet.kube.kinds import NODE
from simfleet.kube.machines import Execution, Machine, PlainMachine
from simfleet.kube.placement import GPU
from simfleet.kube.podlogs import PodLog
from simfleet.kube.store import Change, Obj, Store

# How often at most a machine that is away is looked at, in real seconds.
MACHINE_POLL_S = 0.02
PLUGIN_APP = "nvidia-device-plugin-daemonset"
# How long a container takes to stop after SIGTERM, in simulated seconds; its grace is the limit.
STOP_ANNOTATION = "simfleet.dev/stop-seconds"


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """How long things take, in simulated seconds."""

    start_s: float = 1.0
    stop_s: float = 1.0
    tick_s: float = 0.5


@dataclass(slots=True)
class _Runtime:
    """A pod as its kubelet knows it."""

    pod_uid: str
    namespace: str
    name: str
    node: str
    boot_id: str
    log: PodLog = field(default_factory=PodLog)
    task: asyncio.Task[None] | None = None
    stopping: bool = False


class Kubelet:
    """Runs the pods bound to every node. Start it with `Live`."""

    kinds = ("Pod", "Node")

    def __init__(
        self,
        store: Store,
        machines: Mapping[str, Machine] | None = None,
        settings: KubeletSettings | None = None,
    ) -> None:
        self._store = store
        self._clock: Clock = store.clock
        self.machines: dict[str, Machine] = dict(machines or {})
        self.settings = settings or KubeletSettings()
        self._running: dict[str, _Runtime] = {}
        self._logs: dict[str, PodLog] = {}
        self._seen: dict[str, float] = {}
        self._boots: dict[str, str] = {}

    # what others ask

    def silent_s(self, node: str) -> float | None:
        """Simulated seconds since the node's kubelet last gave a sign of life."""
        seen = self._seen.get(node)
        return None if seen is None else self._clock.elapsed_s() - seen

    def log_of(self, pod: Obj, _container: str) -> PodLog:
        """The log of a pod's container; empty for what never ran."""
        return self._logs.get(pod["metadata"]["uid"], PodLog(ended=True))

    # following the store

    def changed(self, change: Change) -> None:
        """Start or stop a pod, or take a node in."""
        if change.kind == "Node":
            self._node_changed(change)
            return
        uid = change.obj["metadata"]["uid"]
        if change.type == "DELETED":
            self._forget(uid)
        elif change.obj["spec"].get("nodeName") in self.machines:
            self._pod_changed(change.obj, uid)

    def sync(self) -> None:
        """Everything is done in `changed` and `tick`."""

    def _node_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            self._seen.pop(change.name, None)
            self._boots.pop(change.name, None)
            return
        if change.previous is not None:
            return
        info = change.obj["status"].get("nodeInfo", {})
        if change.name not in self.machines:
            gpus = int(change.obj["status"].get("capacity", {}).get(GPU, "0"))
            self.machines[change.name] = PlainMachine(gpus, info.get("bootID") or change.name)
        self._boots[change.name] = self.machines[change.name].boot_id
        self._seen[change.name] = self._clock.elapsed_s()
        for pod in self._store.pods_on(change.name):
            self._pod_changed(pod, pod["metadata"]["uid"])

    def _pod_changed(self, pod: Obj, uid: str) -> None:
        known = self._running.get(uid)
        node = pod["spec"]["nodeName"]
        if not self.machines[node].is_up():
            return
        if "deletionTimestamp" in pod["metadata"]:
            if known is None or not known.stopping:
                self._begin_stop(pod, uid)
        elif known is None and pod["status"].get("phase") not in FINISHED:
            self._begin(pod, uid)

    def _begin(self, pod: Obj, uid: str) -> None:
        metadata, node = pod["metadata"], pod["spec"]["nodeName"]
        boot_id = self.machines[node].boot_id
        runtime = _Runtime(uid, metadata["namespace"], metadata["name"], node, boot_id)
        self._running[uid] = runtime
        self._logs[uid] = runtime.log
        started = pod["status"].get("phase") == "Running"
        runtime.task = asyncio.create_task(self._run(runtime, started=started))

    def _begin_stop(self, pod: Obj, uid: str) -> None:
        known = self._running.get(uid)
        if known is not None and known.task is not None:
            known.task.cancel()
        metadata, node = pod["metadata"], pod["spec"]["nodeName"]
        if known is None:
            boot_id = self.machines[node].boot_id
            known = _Runtime(uid, metadata["namespace"], metadata["name"], node, boot_id)
            self._running[uid] = known
        known.stopping = True
        known.task = asyncio.create_task(self._stop(known, pod))

    def _forget(self, uid: str) -> None:
        runtime = self._running.pop(uid, None)
        log = self._logs.pop(uid, None)
        if log is not None:
            log.ended = True
        if runtime is not None and runtime.task is not None:
            runtime.task.cancel()

    # the life of one pod

    async def _run(self, runtime: _Runtime, *, started: bool) -> None:
        machine = self.machines[runtime.node]
        await self._clock.sleep(self.settings.start_s)
        if not await self._survives(runtime, machine):
            return
        if not started and not await self._initialized(runtime, machine):
            return
        pod = self._current(runtime)
        if pod is None:
            return
        if not started:
            pod = podstate.start(self._store, pod)
        if (pod["metadata"].get("labels") or {}).get("app") == PLUGIN_APP:
            machine.plugin_restarted()
        execution = machine.run(pod) if podstate.has_command(pod) else None
        if execution is not None:
            await self._execute(runtime, machine, execution)

    async def _initialized(self, runtime: _Runtime, machine: Machine) -> bool:
        """Wait for the init containers; False when the pod or its node is gone meanwhile."""
        while (pod := self._current(runtime)) is not None:
            blocked = machine.init_blocked(pod)
            if not blocked:
                return True
            podstate.initialize(self._store, pod, blocked)
            await self._clock.sleep(self.settings.tick_s)
            if not await self._survives(runtime, machine):
                return False
        return False

    async def _execute(self, runtime: _Runtime, machine: Machine, execution: Execution) -> None:
        await self._clock.sleep(execution.duration_s)
        if not await self._survives(runtime, machine):
            return
        runtime.log.write(execution.log, self._clock.now())
        if execution.on_finish is not None:
            execution.on_finish()
        # A command that took its own node down is not there to report success.
        if not await self._survives(runtime, machine):
            return
        runtime.log.ended = True
        if pod := self._current(runtime):
            podstate.finish(self._store, pod, execution.exit_code)

    async def _stop(self, runtime: _Runtime, pod: Obj) -> None:
        grace_s = pod["metadata"].get("deletionGracePeriodSeconds", 0)
        annotations = pod["metadata"].get("annotations") or {}
        wanted_s = float(annotations.get(STOP_ANNOTATION, self.settings.stop_s))
        await self._clock.sleep(min(grace_s, wanted_s))
        if await self._survives(runtime, self.machines[runtime.node]):
            deletion.finish_pod(self._store, runtime.namespace, runtime.name, runtime.pod_uid)

    async def _survives(self, runtime: _Runtime, machine: Machine) -> bool:
        """Wait until the node's kubelet is there; False when the node was rebooted meanwhile."""
        # A machine is only looked at: it tells nobody when it comes back.
        while not machine.is_up():  # noqa: ASYNC110
            await asyncio.sleep(max(MACHINE_POLL_S, self._clock.real_s(self.settings.tick_s)))
        return machine.boot_id == runtime.boot_id

    def _current(self, runtime: _Runtime) -> Obj | None:
        pod = self._store.find("Pod", runtime.namespace, runtime.name)
        return pod if pod is not None and pod["metadata"]["uid"] == runtime.pod_uid else None

    # the machines

    def tick(self) -> None:
        """Look at every machine: sign of life, boot id, GPUs."""
        now = self._clock.elapsed_s()
        for name, machine in self.machines.items():
            if name not in self._boots:
                continue
            if not machine.is_up():
                continue
            self._seen[name] = now
            node = self._store.find("Node", "", name)
            if node is None:
                continue
            rebooted = machine.boot_id != self._boots[name]
            if rebooted:
                self._boots[name] = machine.boot_id
                self._restart_pods(name)
            self._report_node(node, machine)
            if rebooted or self._was_away(node):
                self._look_again(name)

    def _was_away(self, node: Obj) -> bool:
        conditions = node["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] != "True" for one in conditions)

    def _look_again(self, name: str) -> None:
        """After an absence: pods bound, deleted or lost meanwhile."""
        for pod in self._store.pods_on(name):
            self._pod_changed(pod, pod["metadata"]["uid"])
            podstate.make_ready_again(self._store, pod)

    def _restart_pods(self, name: str) -> None:
        """What a reboot leaves: commands have failed, services start anew."""
        for pod in self._store.pods_on(name):
            runtime = self._running.pop(pod["metadata"]["uid"], None)
            if runtime is not None and runtime.task is not None:
                runtime.task.cancel()
            if pod["status"].get("phase") in FINISHED or "deletionTimestamp" in pod["metadata"]:
                continue
            if pod["spec"].get("restartPolicy") == "Always":
                podstate.interrupt(self._store, pod)
            elif runtime is not None or pod["status"].get("phase") == "Running":
                podstate.lose(self._store, pod)
                self._logs.setdefault(pod["metadata"]["uid"], PodLog()).ended = True

    def _report_node(self, node: Obj, machine: Machine) -> None:
        status = podstate.node_status(node, machine, self._store.timestamp())
        if status != node["status"]:
            self._store.replace(NODE, node, node | {"status": status})

    async def stop(self) -> None:
        """End all tasks."""
        tasks = [one.task for one in self._running.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
