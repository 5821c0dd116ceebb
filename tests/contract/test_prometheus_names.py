"""Whose series they are, on a real Prometheus: names that lack, and names that are there twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.model import Observation
from breakfix.observe import observe
from breakfix.policy import Policy, parse_policy
from breakfix.replay.direct import Queries
from breakfix.replay.promql import Evaluator, parse
from breakfix.replay.promql.syntax import metrics_of
from breakfix.replay.promql.vectors import Store
from breakfix.replay.server import ReplayPrometheus
from breakfix.wiring import default_policy_text
from tests.contract.prometheus_history import History, Value
from tests.fakes_cluster import FakeCluster

FLEET = ("gpu-1", "gpu-2", "gpu-3")
BAD = "gpu-3"
MINUTE = 60.0
LENGTH_S = 30 * MINUTE
Labels = dict[str, str]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return parse_policy(default_policy_text())


@pytest.fixture(scope="module")
def server() -> Iterator[ReplayPrometheus]:
    with ReplayPrometheus() as made:
        yield made


@pytest.fixture(scope="module")
def days() -> Iterator[datetime]:
    """Moments so far from each other that no test sees the series of another one."""
    return (datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=9 * i) for i in range(1000))


class Scene:
    """Three nodes, and what is scraped of them."""

    def __init__(self, url: str, policy: Policy, at: datetime) -> None:
        self.url, self.policy, self.at = url, policy, at
        self.history = History(end=at.timestamp(), length_s=LENGTH_S)

    def add(self, metric: str, value: Value | float, labels: Mapping[str, str]) -> None:
        self.history.add(metric, value, **labels)

    def look(self) -> Observation:
        """What is observed. Each query that reads these series means the same to ourselves."""
        self.history.write(self.url)
        cluster = FakeCluster()
        for node in FLEET:
            cluster.add_node(node)
        with PrometheusMetrics(self.url) as metrics:
            self._compare(metrics)
            seen = observe(
                metrics,
                cluster,
                self.policy,
                at=self.at,
                gpu_node_selector="nvidia.com/gpu.present=true",
            )
        assert {n: c.error for n, c in seen.coverage.items() if c.error} == {}
        assert [w for w in seen.warnings if "could not be read" in w] == []
        return seen

    def _compare(self, metrics: PrometheusMetrics) -> None:
        store = Store()
        for labels, value in self.history.series:
            written = self.history.written(labels, value)
            store.add(written.labels, written.times, written.values)
        mine = {labels["__name__"] for labels, _ in self.history.series}
        queries = Queries(self.policy, most=2).queries(self.policy)
        asked = [q for q in queries if mine & metrics_of(parse(q))]
        now = np.array([round(self.at.timestamp() * 1000)], np.int64)
        for query in asked:
            real = {_key(s.labels): s.value for s in metrics.query(query, at=self.at).samples}
            ours = {
                _key(e.labels): float(e.values[0])
                for e in Evaluator(store).vector(parse(query), now)
                if e.there[0]
            }
            assert ours == pytest.approx(real, rel=1e-9, abs=1e-6), query
        assert asked


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


@pytest.fixture
def scene(server: ReplayPrometheus, policy: Policy, days: Iterator[datetime]) -> Scene:
    return Scene(server.url, policy, next(days))


def speaks(seen: Observation, signal: str) -> set[str]:
    return {r.node for r in seen.readings if r.signal == signal}


def covered(seen: Observation, signal: str) -> set[str]:
    return set(seen.coverage[signal].nodes_seen)


def before(end: float) -> Value:
    """1 until `end`; then the series is gone."""
    return lambda t: 1.0 if t < end else None


# ------------------------------------------------------------------ node exporter


def of_address(node: str) -> Labels:
    return {"instance": f"10.0.0.{node[-1]}:9100", "job": "node-exporter"}


def of_host(node: str) -> Labels:
    return {"instance": f"{node}:9100", "job": "node-exporter"}


def of_target(node: str) -> Labels:
    return {**of_address(node), "node": node}


def of_nothing_else(node: str) -> Labels:
    return {"node": node, "job": "node-exporter"}


def node_exporters(scene: Scene, named: Callable[[str], Labels], *, uname: bool = True) -> None:
    """One InfiniBand port a node; that of the bad one is down for the last six minutes."""
    for node in FLEET:
        labels = named(node)

        def state(t: float, node: str = node) -> float:
            return 1.0 if node == BAD and t > LENGTH_S - 6 * MINUTE else 4.0

        scene.add("node_infiniband_state_id", state, {**labels, "device": "mlx5_0", "port": "1"})
        scene.add("node_boot_time_seconds", 1.7e9, labels)
        if uname:
            scene.add("node_uname_info", 1.0, {**labels, "nodename": node, "release": "6.8"})


@pytest.mark.parametrize(
    ("named", "uname"),
    [
        pytest.param(of_address, True, id="uname names the address"),
        pytest.param(of_target, False, id="the target's node label, no uname"),
        pytest.param(of_host, False, id="the target's host, no uname"),
        pytest.param(of_nothing_else, True, id="a node label without an address"),
        pytest.param(of_nothing_else, False, id="a node label without an address or uname"),
    ],
)
def test_a_port_that_is_down_is_its_nodes_however_it_is_named(
    scene: Scene, named: Callable[[str], Labels], uname: bool
) -> None:
    node_exporters(scene, named, uname=uname)
    seen = scene.look()
    assert speaks(seen, "ib_port_down") == {BAD}
    assert covered(seen, "ib_port_down") == set(FLEET)
    assert {n for n, f in seen.facts.items() if "boot_time" in f} == set(FLEET)


def test_two_prometheis_and_two_jobs_name_a_node_once(scene: Scene) -> None:
    for extra in ({"replica": "a"}, {"replica": "b"}, {"replica": "a", "job": "twin"}):
        node_exporters(scene, lambda node, extra=extra: {**of_address(node), **extra})
    seen = scene.look()
    assert speaks(seen, "ib_port_down") == {BAD}
    assert covered(seen, "ib_port_down") == set(FLEET)


def renamed(scene: Scene, node: str, old: str) -> None:
    """The address of a node is still named as another one, too."""
    scene.add("node_uname_info", 1.0, {**of_address(node), "nodename": old})


@pytest.mark.parametrize("old", ["gone-1", "gpu-1"])
def test_an_address_of_two_names_is_nobodys_and_the_others_are_judged(
    scene: Scene, old: str
) -> None:
    node_exporters(scene, of_address)
    renamed(scene, "gpu-2", old)
    seen = scene.look()
    assert speaks(seen, "ib_port_down") == {BAD}
    assert covered(seen, "ib_port_down") == {"gpu-1", BAD}
    assert "ib_port_down: 1 series name no node of the cluster" in seen.warnings


def test_the_fault_of_an_address_of_two_names_condemns_neither(scene: Scene) -> None:
    node_exporters(scene, of_address)
    renamed(scene, BAD, "gpu-1")
    seen = scene.look()
    assert speaks(seen, "ib_port_down") == set()
    assert covered(seen, "ib_port_down") == {"gpu-1", "gpu-2"}


def test_an_address_of_two_names_is_believed_by_its_target(scene: Scene) -> None:
    node_exporters(scene, of_target)
    renamed(scene, BAD, "gone-1")
    seen = scene.look()
    assert speaks(seen, "ib_port_down") == {BAD}
    assert covered(seen, "ib_port_down") == set(FLEET)


def test_labels_that_name_two_nodes_are_believed_in_neither(scene: Scene) -> None:
    other = dict(zip(FLEET, FLEET[1:] + FLEET[:1], strict=True))
    node_exporters(scene, of_target, uname=False)
    for node in FLEET:
        scene.add("node_uname_info", 1.0, {**of_target(node), "nodename": other[node]})
    seen = scene.look()
    assert speaks(seen, "ib_port_down") == set()
    assert covered(seen, "ib_port_down") == set()


# ------------------------------------------------------------------ the kubelet


def kubelets(scene: Scene, named: Callable[[str], Labels], *, told: bool) -> None:
    """That of the bad node has not listed its containers for ten minutes."""
    for node in FLEET:
        labels = named(node)
        seen = scene.at.timestamp() - (10 * MINUTE if node == BAD else 0.0)
        scene.add("kubelet_pleg_last_seen_seconds", seen, labels)
        scene.add("kubelet_running_pods", 3.0, labels)
        if told:
            scene.add("kubelet_node_name", 1.0, {**labels, "node": node})


@pytest.mark.parametrize(
    ("named", "told"),
    [
        pytest.param(of_address, True, id="the kubelet names its address"),
        pytest.param(of_target, False, id="the target's node label"),
        pytest.param(of_target, True, id="both"),
        pytest.param(of_host, False, id="the target's host"),
        pytest.param(of_nothing_else, True, id="a node label without an address"),
        pytest.param(of_nothing_else, False, id="a node label alone"),
    ],
)
def test_a_stuck_kubelet_is_its_nodes_however_it_is_named(
    scene: Scene, named: Callable[[str], Labels], told: bool
) -> None:
    kubelets(scene, named, told=told)
    seen = scene.look()
    assert speaks(seen, "kubelet_pleg") == {BAD}
    assert covered(seen, "kubelet_pleg") == set(FLEET)


def test_a_kubelet_of_two_names_is_nobodys_and_the_others_are_judged(scene: Scene) -> None:
    kubelets(scene, of_address, told=True)
    scene.add("kubelet_node_name", 1.0, {**of_address("gpu-2"), "node": "gone-1"})
    seen = scene.look()
    assert speaks(seen, "kubelet_pleg") == {BAD}
    assert covered(seen, "kubelet_pleg") == {"gpu-1", BAD}


# ------------------------------------------------------------------ pods


def pod_info(scene: Scene, pod: str, node: str, value: Value | float = 1.0, **more: str) -> None:
    about = {"created_by_kind": "StatefulSet", "created_by_name": "web", **more}
    scene.add("kube_pod_info", value, {"namespace": "a", "pod": pod, "node": node, **about})


def restarts(scene: Scene, pod: str, **more: str) -> None:
    labels = {"namespace": "a", "pod": pod, "container": "c", **more}
    scene.add("kube_pod_container_status_restarts_total", lambda t: t // 100, labels)


@pytest.mark.parametrize(
    ("node", "exported"),
    [
        pytest.param("node", {}, id="by its own labels"),
        pytest.param("exported_node", {"node": "infra-1"}, id="the scrape moved them aside"),
    ],
)
def test_a_pod_that_is_still_on_its_old_node_too_is_on_the_one_scraped_last(
    scene: Scene, node: str, exported: Labels
) -> None:
    """A StatefulSet's pod has moved, and nothing has marked its old series as gone."""
    scene.history.marks_gone = False
    about = {"created_by_kind": "StatefulSet", "created_by_name": "web"}
    for replica in ("x", "y"):
        for pod, where, holds in (
            ("web-0", "gpu-1", before(LENGTH_S - 2 * MINUTE)),
            ("web-0", "gpu-2", 1.0),
            ("web-1", BAD, 1.0),
        ):
            who = {"namespace": "a", "pod": pod, "replica": replica, **exported, node: where}
            scene.add("kube_pod_info", holds, {**who, **about})
        for pod in ("web-0", "web-1"):
            restarts(scene, pod, replica=replica)
    assert speaks(scene.look(), "pod_restarts") == {"gpu-2", BAD}


def test_a_pod_that_has_moved_is_on_its_new_node(scene: Scene) -> None:
    pod_info(scene, "web-0", "gpu-1", before(20 * MINUTE), uid="1")
    pod_info(scene, "web-0", "gpu-2", uid="2")
    restarts(scene, "web-0")
    assert speaks(scene.look(), "pod_restarts") == {"gpu-2"}


def test_a_pod_of_two_owners_counts_once(scene: Scene) -> None:
    scene.history.marks_gone = False
    pod_info(scene, "web-0", "gpu-1", before(LENGTH_S - 2 * MINUTE), uid="1")
    pod_info(scene, "web-0", "gpu-1", uid="2", created_by_name="other")
    pod_info(scene, "web-1", BAD)
    for pod in ("web-0", "web-1"):
        restarts(scene, pod)
    seen = scene.look()
    assert speaks(seen, "pod_restarts") == {"gpu-1", BAD}
    assert len({r.value for r in seen.readings if r.signal == "pod_restarts"}) == 1
