"""What workloads and the scheduler show: never a reason to take a node out by itself."""

from __future__ import annotations

from tests.traces import faults
from tests.traces.fleet import Shape
from tests.traces.scenarios.registry import scenario
from tests.traces.story import Story

SMALL = Shape(nodes=6, gpus=4)


def _restarts(s: Story, pod: str, node: str, times: int, since: float, **owner: str) -> None:
    s.pod(pod, node, gpus=1, ready=True, **owner)
    total = "kube_pod_container_status_restarts_total"
    labels = {"namespace": "team-a", "pod": pod, "uid": f"uid-{pod}", "container": "main"}
    steps = [{"at": -s.warmup, "value": 0.0}]
    steps += [{"at": since + 40.0 * i, "value": float(i + 1)} for i in range(times)]
    s.series(total, per="once", labels=labels, steps=steps)
    s.series(
        "kube_pod_container_status_waiting_reason",
        per="once",
        labels={**labels, "reason": "CrashLoopBackOff"},
        steps=[{"at": since + 80.0, "value": 1.0}],
    )


@scenario("never_alone", SMALL)
def crash_loop_of_one_deployment(s: Story) -> None:
    """A deployment crashes on every node where it runs: its image, no node."""
    for i, node in enumerate(s.pick(4)):
        _restarts(s, f"api-{i}", node.name, 8, s.onset, owner="ReplicaSet/api-7c9")
    s.never()


@scenario("never_alone", SMALL)
def many_crash_loops_on_one_node(s: Story) -> None:
    """Pods of several owners crash on one node only: the node is suspect, but nothing there says
    what ails it; a person looks.
    """
    node = s.pick()[0]
    for i in range(4):
        _restarts(s, f"svc{i}-0", node.name, 10, s.onset, owner=f"ReplicaSet/svc{i}-55d")
    s.looks(node, "app_level", also=["node_not_ready", "unclassified"])
    s.never()


def _inference(s: Story, errors: float, latency: float, sick: set[str]) -> None:
    """An inference service with a pod on each node: requests, errors and latency, per pod."""
    for i, node in enumerate(s.nodes):
        pod = f"chat-{i}"
        s.pod(pod, node.name, gpus=node.gpu_count, owner="ReplicaSet/chat-6f8", namespace="serving")
        labels = {"namespace": "serving", "pod": pod, "model_name": "llama-70b", "job": "vllm"}
        is_sick = node.name in sick
        bad = errors if is_sick else 0.001
        for status, share in (("2xx", 1.0 - bad), ("5xx", bad)):
            steps = [{"at": -s.warmup, "value": 0.0, "rate": 20.0 * (share if is_sick else 1.0)}]
            if status == "5xx" and not is_sick:
                steps[0]["rate"] = 0.02
            s.series(
                "http_requests_total",
                per="once",
                steps=steps,
                labels={**labels, "status": status, "handler": "/v1/chat", "method": "POST"},
            )
        slow = latency if is_sick else 1.0
        for bound, share in (
            ("0.5", 0.5 / slow),
            ("1.0", 0.9 / slow),
            ("2.5", 0.99),
            ("+Inf", 1.0),
        ):
            s.series(
                "vllm:e2e_request_latency_seconds_bucket",
                per="once",
                labels={**labels, "le": bound},
                steps=[{"at": -s.warmup, "value": 0.0, "rate": round(20.0 * share, 3)}],
            )


@scenario("never_alone", SMALL)
def errors_of_an_inference_service(s: Story) -> None:
    """A service answers a third of its requests with 5xx on one node; nothing else is wrong."""
    node = s.pick()[0]
    _inference(s, s.some(0.2, 0.5), 1.0, {node.name})
    s.looks(node, "app_level", since=0.0)
    s.never()


@scenario("never_alone", SMALL)
def slow_answers_everywhere(s: Story) -> None:
    """All pods of a service are slow and full of errors: its release, or its load."""
    _inference(s, 0.2, 4.0, {n.name for n in s.nodes})
    s.never()


@scenario("hardware", SMALL, true_of=("gpu_count_short",))
def errors_and_a_gpu_that_is_gone(s: Story) -> None:
    """A service fails on one node, and a GPU of that node is gone."""
    node, gpu = s.victim()
    _inference(s, 0.4, 2.0, {node.name})
    faults.gone_silently(s, node, gpu, s.onset)
    s.only(node)


@scenario("never_alone", SMALL)
def pods_wait_for_room(s: Story) -> None:
    """Pods are pending for want of GPUs: the fleet is full."""
    for i in range(s.whole(8, 20)):
        s.pod(
            f"queued-{i:02d}",
            phase="Pending",
            ready=False,
            gpus=4,
            owner=f"Job/queued-{i}",
            **{"from": s.onset + 5.0 * i},
        )
        s.event(
            s.onset + 5.0 * i,
            "FailedScheduling",
            "0/6 nodes are available: Insufficient nvidia.com/gpu",
            pod=f"team-a/queued-{i:02d}",
            source="default-scheduler",
        )
    s.never()


@scenario("never_alone", SMALL)
def fast_failing_jobs_everywhere(s: Story) -> None:
    """A broken image fails within seconds wherever it starts, on every node alike."""
    for i in range(24):
        node = s.nodes[i % len(s.nodes)]
        at = s.onset + 15.0 * i
        s.pod(
            f"broken-{i:02d}",
            node.name,
            gpus=1,
            owner=f"Job/broken-{i}",
            **{"from": at},
            changes=[{"at": at + 4.0, "phase": "Failed", "ready": False}],
        )
    s.never()


@scenario("never_alone", SMALL)
def evictions_for_disk(s: Story) -> None:
    """Pods of one node are evicted for want of disk; the images are cleaned and all goes on."""
    node = s.pick()[0]
    s.condition(node, s.onset, "DiskPressure", "True", "KubeletHasDiskPressure")
    for i in range(4):
        s.pod(
            f"batch-{i}",
            node.name,
            owner=f"Job/batch-{i}",
            changes=[{"at": s.onset + 20.0 + i, "phase": "Failed", "ready": False}],
        )
        s.event(
            s.onset + 20.0 + i,
            "Evicted",
            "The node was low on resource: ephemeral-storage",
            pod=f"team-a/batch-{i}",
        )
    s.condition(node, s.onset + 500.0, "DiskPressure", "False", "KubeletHasNoDiskPressure")
    s.looks(node, "app_level", also=["disk"])
    s.never()


@scenario("never_alone", SMALL, watch=1200)
def deploy_with_more_restarts(s: Story) -> None:
    """A deploy rolls through a service: pods restart once, errors for a minute."""
    s.series(
        "kube_deployment_status_observed_generation",
        per="once",
        labels={"namespace": "serving", "deployment": "chat"},
        steps=[{"at": -s.warmup, "value": 41.0}, {"at": s.onset, "value": 42.0}],
    )
    for i, node in enumerate(s.nodes):
        _restarts(s, f"chat-{i}", node.name, 1, s.onset + 30.0 * i, owner="ReplicaSet/chat-6f8")
    s.never()
