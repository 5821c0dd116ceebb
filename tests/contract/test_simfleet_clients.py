"""The simulated cluster and the programs that people use on a real one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from types import SimpleNamespace

import kubernetes_asyncio
import pytest
from kubernetes import client, config, watch

from simfleet.kube import SimKube, node
from simfleet.kube.machines import Execution, PlainMachine

NODES = [node(f"gpu-{n}", labels={"nvidia.com/gpu.present": "true"}) for n in range(3)]
SPEED = 20.0
DEADLINE_S = 10.0
KUBECTL = shutil.which("kubectl")


def eventually(check, *, within_s=DEADLINE_S):
    """The first true value of a condition."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never true: {check}")


@pytest.fixture
def kube():
    with SimKube(nodes=NODES, live=True, speed=SPEED, tls=True) as running:
        yield running


@pytest.fixture
def config_path(kube, tmp_path):
    return str(kube.kubeconfig(tmp_path / "kubeconfig"))


@pytest.fixture
def api(config_path):
    with config.new_client_from_config(config_path) as opened:
        yield client.CoreV1Api(opened)


def template(app, **container):
    main = {"name": "main", "image": "registry.example/app:1"} | container
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [main]}}


def replica_set(api, name, count, **container):
    selector = {"matchLabels": {"app": name}}
    spec = {"replicas": count, "selector": selector, "template": template(name, **container)}
    body = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": spec}
    client.AppsV1Api(api.api_client).create_namespaced_replica_set("default", body)
    eventually(lambda: ready(api, name) == count)


def ready(api, app):
    pods = api.list_namespaced_pod("default", label_selector=f"app={app}").items
    return sum(
        1
        for pod in pods
        if not pod.metadata.deletion_timestamp
        for one in pod.status.conditions or ()
        if one.type == "Ready" and one.status == "True"
    )


def test_the_python_client_pages_and_watches(api):
    page = api.list_node(limit=2)
    assert [one.metadata.name for one in page.items] == ["gpu-0", "gpu-1"]
    rest = api.list_node(limit=2, _continue=page.metadata._continue)
    assert [one.metadata.name for one in rest.items] == ["gpu-2"]
    seen = [
        event["object"].metadata.name
        for event in watch.Watch().stream(api.list_node, timeout_seconds=1)
    ]
    assert seen[:3] == ["gpu-0", "gpu-1", "gpu-2"]


def test_an_evicted_pod_comes_back_on_another_node(api):
    replica_set(api, "train", 3, resources={"limits": {"nvidia.com/gpu": "4"}})
    api.patch_node("gpu-0", {"spec": {"unschedulable": True}})
    victim = api.list_namespaced_pod("default", field_selector="spec.nodeName=gpu-0").items[0]
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=victim.metadata.name))
    api.create_namespaced_pod_eviction(victim.metadata.name, "default", body)
    eventually(lambda: ready(api, "train") == 3)
    nodes = {pod.spec.node_name for pod in api.list_namespaced_pod("default").items}
    assert nodes == {"gpu-1", "gpu-2"}


def test_a_pod_without_room_says_why(api):
    replica_set(api, "train", 3, resources={"limits": {"nvidia.com/gpu": "8"}})
    pod = template("big", resources={"limits": {"nvidia.com/gpu": "1"}})
    api.create_namespaced_pod("default", pod | {"metadata": {"name": "big"}})
    status = eventually(lambda: api.read_namespaced_pod("big", "default").status.conditions)
    assert status[0].message.startswith("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")


def test_a_cordon_shows_its_taint_a_moment_later_and_loses_it_after_the_uncordon(api):
    answer = api.patch_node("gpu-0", {"spec": {"unschedulable": True}})
    assert answer.spec.taints is None
    taints = eventually(lambda: api.read_node("gpu-0").spec.taints)
    assert [one.key for one in taints] == ["node.kubernetes.io/unschedulable"]
    answer = api.patch_node("gpu-0", {"spec": {"unschedulable": None}})
    assert [one.key for one in answer.spec.taints] == ["node.kubernetes.io/unschedulable"]
    eventually(lambda: api.read_node("gpu-0").spec.taints is None)


def test_the_asyncio_client_works_as_well(config_path):
    async def names():
        async with await kubernetes_asyncio.config.new_client_from_config(config_path) as opened:
            found = await kubernetes_asyncio.client.CoreV1Api(opened).list_node()
            return [one.metadata.name for one in found.items]

    assert asyncio.run(names()) == ["gpu-0", "gpu-1", "gpu-2"]


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
def test_kubectl_drains_a_node_and_shows_a_log(api, config_path, tmp_path):
    def kubectl(*words):
        command = [KUBECTL, "--kubeconfig", config_path, "--cache-dir", str(tmp_path), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    replica_set(api, "train", 2)
    assert "node/gpu-0 drained" in kubectl("drain", "gpu-0", "--timeout=20s")
    assert "Ready,SchedulingDisabled" in kubectl("get", "nodes")
    assert "node.kubernetes.io/unschedulable:NoSchedule" in kubectl("describe", "node", "gpu-0")
    kubectl("uncordon", "gpu-0")
    kubectl("run", "once", "--image=x:1", "--restart=Never", "--command", "--", "true")
    eventually(lambda: api.read_namespaced_pod("once", "default").status.phase == "Succeeded")
    assert kubectl("logs", "once") == "done\n"


class Rebooting(PlainMachine):
    """A machine on which every command reboots the node, and which is away for a moment."""

    def __init__(self):
        super().__init__(8, "boot-1")
        self.down_until = 0.0

    def is_up(self):
        return time.monotonic() >= self.down_until

    def run(self, pod):
        return Execution(1.0, 0, "rebooting\n", self._reboot)

    def _reboot(self):
        self.boot_id = "boot-2"
        self.down_until = time.monotonic() + 3.0  # 60 simulated seconds


def test_a_pod_that_reboots_its_own_node_fails_and_the_node_comes_back():
    machines = {"gpu-0": Rebooting()}
    with SimKube(nodes=NODES, live=True, speed=SPEED, machines=machines) as kube:
        opened = client.ApiClient(client.Configuration(host=kube.url))
        opened.set_default_header("Authorization", "Bearer admin-token")
        api = client.CoreV1Api(opened)
        pod = template("reboot", command=["reboot"])
        pod["spec"] |= {"nodeName": "gpu-0", "restartPolicy": "Never"}
        api.create_namespaced_pod("default", pod | {"metadata": {"name": "reboot"}})

        def condition():
            conditions = api.read_node("gpu-0").status.conditions
            return next(one.status for one in conditions if one.type == "Ready")

        eventually(lambda: condition() == "Unknown")
        assert api.read_namespaced_pod("reboot", "default").status.phase != "Succeeded"
        eventually(lambda: condition() == "True")
        assert api.read_node("gpu-0").status.node_info.boot_id == "boot-2"
        status = eventually(lambda: failed(api, "reboot"))
        assert status.container_statuses[0].state.terminated.reason == "Unknown"
        eventually(lambda: api.read_node("gpu-0").spec.taints is None)
        opened.close()


def failed(api, name):
    status = api.read_namespaced_pod(name, "default").status
    return status if status.phase == "Failed" else None


def test_airflows_pod_operator_runs_a_pod_to_its_end(api, config_path):
    pytest.importorskip("airflow.providers.cncf.kubernetes")
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    validate = KubernetesPodOperator(
        task_id="validate",
        name="validate",
        namespace="default",
        image="registry.example/validate:1",
        cmds=["validate"],
        config_file=config_path,
        in_cluster=False,
        kubernetes_conn_id=None,
        get_logs=True,
        startup_check_interval_seconds=1,
        on_finish_action="keep_pod",
        do_xcom_push=False,
    )
    pushed = {}
    task = SimpleNamespace(
        dag_id="node_case",
        task_id="validate",
        run_id="r1",
        map_index=-1,
        try_number=1,
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    run = SimpleNamespace(dag_id="node_case", run_id="r1")
    context = {"ti": task, "task_instance": task, "dag_run": run, "run_id": "r1", "dag": None}
    validate.execute(context)
    pods = api.list_namespaced_pod("default", label_selector="task_id=validate").items
    assert [pod.status.phase for pod in pods] == ["Succeeded"]
    assert pushed["pod_name"] == pods[0].metadata.name
