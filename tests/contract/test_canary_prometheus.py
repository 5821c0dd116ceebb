"""Canary comparisons on a real Prometheus: the policy's queries, joined, reset, born and absent."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

import pytest

from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.cohorts import Advice, CheckOutcome, Cohort
from breakfix.decide.canary import compare
from breakfix.observe.canary import read_evidence
from breakfix.observe.canary.evidence import Asked
from breakfix.policy_canary import BusinessMetric
from dev.stack.prometheus import PrivatePrometheus
from tests.canaries import RULES
from tests.contract.prometheus_history import History

LENGTH_S = 1800.0


@pytest.fixture(scope="module")
def server(tmp_path_factory, private_processes):
    folder = tmp_path_factory.mktemp("prometheus") / "data"
    with PrivatePrometheus(folder, private_processes, remote_write=True) as prometheus:
        yield prometheus


@pytest.fixture(scope="module")
def metrics(server):
    with PrometheusMetrics(server.url) as client:
        yield client


def grows(per_s, *, born_s=0.0, first=0.0, reset_s=None):
    """A counter: from `born_s` on, beginning at `first`, back to zero at `reset_s`."""

    def value(t):
        if t < born_s:
            return None
        since = t - reset_s if reset_s is not None and t >= reset_s else t - born_s
        return (0.0 if reset_s is not None and t >= reset_s else first) + per_s * since

    return value


class Scene:
    """Nodes of a test's own, a pod on each, and what the comparison makes of them."""

    def __init__(self, name, server, metrics):
        self.name, self.server, self.metrics = name, server, metrics
        self.history = History(end=float(int(time.time())) - 30, length_s=LENGTH_S)
        self.moved = []

    def pod(self, node, *, scraped_since=0.0, in_info=True):
        labels = self.labels(node)
        self.history.add("up", lambda t: 1.0 if t >= scraped_since else None, **labels)
        if in_info:
            self.history.add(
                "kube_pod_info",
                1.0,
                namespace=self.name,
                pod=f"pod-{node}",
                node=f"{self.name}-{node}",
                instance="ksm:8080",
                job="ksm",
                uid=f"uid-{node}",
            )

    def labels(self, node):
        return {
            "namespace": self.name,
            "pod": f"pod-{node}",
            "instance": f"{node}.{self.name}.pod:8000",
            "job": "model",
        }

    def add(self, metric, node, value, **labels):
        self.history.add(metric, value, **self.labels(node), **labels)

    def vllm(self, node, ok=1.0, bad=0.0, slow=0.0):
        http = {"handler": "/v1/completions", "method": "POST"}
        self.add("http_requests_total", node, grows(ok), status="2xx", **http)
        if bad:
            self.add("http_requests_total", node, grows(bad), status="5xx", **http)
        for bound, rate in (("0.5", ok - slow), ("1.0", ok - slow), ("2.5", ok), ("+Inf", ok)):
            name = "vllm:e2e_request_latency_seconds_bucket"
            self.add(name, node, grows(rate), le=bound, model_name="m")

    def evidence(self, canary=("c1", "c2", "c3"), stable=("s4", "s5", "s6"), rules=RULES):
        self.history.write(self.server.url)
        cohorts = (
            Cohort(text, nodes=frozenset(f"{self.name}-{n}" for n in names))
            for text, names in (("new", canary), ("old", stable))
        )
        return self.read(*cohorts, rules=rules)

    def read(self, canary, stable, rules=RULES):
        at = datetime.fromtimestamp(self.history.end, UTC)
        asked = Asked(canary, stable, rules, 600.0)
        return read_evidence(self.metrics, asked, at=at, bound={})

    def read_pods(self, *nodes, name="vllm", rules=RULES):
        """What a source says of these nodes' pods, as a canary of pods."""
        self.history.write(self.server.url)
        pods = frozenset((self.name, f"pod-{n}") for n in nodes)
        seen = self.read(Cohort("new", pods=pods), Cohort("old", pods=frozenset()), rules=rules)
        return next(s for s in seen.sources if s.source == name)

    def source(self, name, **how):
        found = next(s for s in self.evidence(**how).sources if s.source == name)
        assert not found.trouble
        return found


@pytest.fixture
def scene(request, server, metrics):
    return Scene(request.node.name.replace("_", "-").replace("[", "-")[-60:], server, metrics)


def test_vllm_on_nodes_is_joined_by_its_pods(scene):
    for node in ("c1", "c2", "c3", "s4", "s5", "s6"):
        scene.pod(node)
        scene.vllm(node, ok=1.0, bad=0.1 if node[0] == "c" else 0.0, slow=0.05)
    seen = scene.evidence()
    vllm = next(s for s in seen.sources if s.source == "vllm")
    assert [u.unit for u in vllm.canary] == [f"{scene.name}-c{i}" for i in (1, 2, 3)]
    assert vllm.canary[0].requests == pytest.approx(660, rel=0.02)
    assert vllm.canary[0].errors == pytest.approx(60, rel=0.02)
    assert vllm.stable[0].errors == 0.0
    assert dict(vllm.canary[0].buckets)[math.inf] == pytest.approx(600, rel=0.02)
    assert [s.source for s in seen.sources if not s.is_silent] == ["vllm"]
    report = compare(seen, RULES)
    assert report.advice is Advice.ROLL_BACK
    assert {c.name for c in report.checks if c.outcome is CheckOutcome.FAILED} == {
        "vllm error rate",
        "vllm error rate against stable",
        "vllm success rate",
        "vllm p99",
    }


def test_alike_nodes_proceed(scene):
    for node in ("c1", "c2", "c3", "s4", "s5", "s6"):
        scene.pod(node)
        scene.vllm(node)
    report = compare(scene.evidence(), RULES)
    assert report.advice is Advice.PROCEED, report.reason


def test_probes_and_the_exporters_own_page_are_no_requests(scene):
    scene.pod("c1")
    for handler in ("/metrics", "/health", "/ping"):
        scene.add("http_requests_total", "c1", grows(5.0), status="2xx", handler=handler)
    assert scene.source("vllm").canary == ()


def test_a_counter_that_was_reset_counts_both_parts(scene):
    scene.pod("c1")
    http = {"handler": "/v1/completions"}
    scene.add("http_requests_total", "c1", grows(1.0, reset_s=1500.0), status="2xx", **http)
    assert scene.source("vllm").canary[0].requests == pytest.approx(600, rel=0.06)


def test_errors_whose_series_is_born_with_them_are_counted(scene):
    scene.pod("c1")
    http = {"handler": "/v1/completions"}
    scene.add("http_requests_total", "c1", grows(1.0), status="2xx", **http)
    born = grows(0.0, born_s=1500.0, first=40.0)
    scene.add("http_requests_total", "c1", born, status="5xx", **http)
    seen = scene.source("vllm").canary[0]
    assert seen.errors == 40.0
    assert seen.requests == pytest.approx(640, rel=0.02)


def test_a_counter_that_was_merely_not_scraped_before_is_not_taken_for_new(scene):
    scene.pod("c1", scraped_since=1500.0)
    old = grows(0.1, born_s=1500.0, first=1_000_000.0)
    scene.add("http_requests_total", "c1", old, status="2xx", handler="/v1/completions")
    assert scene.source("vllm").canary[0].requests < 100


def without_first_scrape(value):
    """The same, but that the scrape at the window's start found nothing."""
    return lambda t: None if 1185.0 <= t <= 1200.0 else value(t)


def test_a_scrape_that_failed_at_the_windows_start_makes_no_counter_new(scene):
    name = scene.labels("c1")
    scene.history.add("up", lambda t: 0.0 if 1185.0 <= t <= 1200.0 else 1.0, **name)
    http = {"handler": "/v1/completions"}
    for status, rate, life in (("2xx", 1.0, 1_000_000.0), ("5xx", 0.0, 90_000.0)):
        counter = without_first_scrape(grows(rate, first=life))
        scene.add("http_requests_total", "c1", counter, status=status, **http)
    seen = scene.read_pods("c1").canary[0]
    assert (seen.requests, seen.errors) == pytest.approx((600, 0), abs=30)


def test_copies_of_a_series_count_once(scene):
    http = {"handler": "/v1/completions"}
    bucket = "vllm:e2e_request_latency_seconds_bucket"
    for copy in ({"prometheus_replica": "a"}, {"prometheus_replica": "b"}, {"replica": "c"}):
        scene.history.add("up", 1.0, **scene.labels("c1"), **copy)
        scene.add("http_requests_total", "c1", grows(1.0), status="2xx", **http, **copy)
        born = grows(0.0, born_s=1500.0, first=40.0)
        scene.add("http_requests_total", "c1", born, status="5xx", **http, **copy)
        for bound in ("1.0", "+Inf"):
            scene.add(bucket, "c1", grows(1.0), le=bound, model_name="m", **copy)
    seen = scene.read_pods("c1").canary[0]
    assert (seen.requests, seen.errors) == pytest.approx((640, 40), rel=0.02)
    assert dict(seen.buckets)[math.inf] == pytest.approx(600, rel=0.02)


def test_a_copy_that_began_later_is_not_taken_for_a_new_counter(scene):
    for copy, since in (("a", 0.0), ("b", 1500.0)):
        labels = {"prometheus_replica": copy}
        up = {**scene.labels("c1"), **labels}
        scene.history.add("up", lambda t, s=since: 1.0 if t >= s else None, **up)
        life = grows(1.0, born_s=since, first=1_000_000.0)
        http = {"status": "2xx", "handler": "/v1/completions"}
        scene.add("http_requests_total", "c1", life, **http, **labels)
    assert scene.read_pods("c1").canary[0].requests == pytest.approx(600, rel=0.02)


@pytest.mark.parametrize(("replicas", "counted"), [(("zone",), 600), ((), 1200)])
def test_a_site_names_the_labels_of_its_copies(scene, replicas, counted):
    for zone in ("x", "y"):
        http = {"status": "2xx", "handler": "/v1/completions", "zone": zone}
        scene.add("http_requests_total", "c1", grows(1.0), **http)
    rules = RULES.model_copy(update={"replicas": replicas})
    seen = scene.read_pods("c1", rules=rules).canary[0]
    assert seen.requests == pytest.approx(counted, rel=0.02)


def test_absent_series_are_unknown_and_never_proceed(scene):
    scene.pod("s4")
    scene.vllm("s4")
    seen = scene.evidence(stable=("s4",))
    assert next(s for s in seen.sources if s.source == "vllm").canary == ()
    assert compare(seen, RULES).advice is Advice.CONTINUE


def test_no_number_is_no_count(scene):
    for node in ("c1", "c2"):
        scene.pod(node)
    bad = {"status": "2xx", "handler": "/v1/completions"}
    scene.add("http_requests_total", "c1", math.nan, **bad)
    scene.add("http_requests_total", "c2", grows(1.0), **bad)
    found = scene.source("vllm")
    assert [u.unit for u in found.canary] == [f"{scene.name}-c2"]
    assert found.canary_heard.unknown == {f"{scene.name}-c1"}


def test_buckets_that_are_no_number_are_unknown(scene):
    http = {"handler": "/v1/completions"}
    for node in ("c1", "c2"):
        scene.add("http_requests_total", node, grows(1.0), status="2xx", **http)
        value = math.nan if node == "c1" else grows(1.0)
        for bound in ("1.0", "+Inf"):
            name = "vllm:e2e_request_latency_seconds_bucket"
            scene.add(name, node, value, le=bound, model_name="m")
    first, second = scene.read_pods("c1", "c2").canary
    assert (first.unclear, second.unclear) == ({"latency"}, frozenset())


@pytest.mark.parametrize(
    ("dead", "wanted"),
    [
        pytest.param(False, Advice.PROCEED, id="two of three are idle, and there"),
        pytest.param(True, Advice.CONTINUE, id="two of three are not there"),
    ],
)
def test_pods_that_crashed_are_missed_and_idle_ones_are_not(scene, dead, wanted):
    for node in ("c1", "s4", "s5"):
        scene.vllm(node)
    for node in () if dead else ("c2", "c3"):
        scene.vllm(node, ok=0.0)
    scene.history.write(scene.server.url)
    cohorts = (
        Cohort(text, pods=frozenset((scene.name, f"pod-{n}") for n in names))
        for text, names in (("new", ("c1", "c2", "c3")), ("old", ("s4", "s5")))
    )
    report = compare(scene.read(*cohorts), RULES)
    assert report.advice is wanted, report.reason


def test_business_values_that_are_no_number_are_named(scene):
    scene.add("queue_depth", "c1", math.nan)
    scene.add("queue_depth", "c2", 3.0)
    scene.history.write(scene.server.url)
    rule = BusinessMetric(name="queue", query="sum by ($by) (queue_depth{$match})", limit=9)
    pods = frozenset((scene.name, f"pod-{n}") for n in ("c1", "c2"))
    rules = RULES.model_copy(update={"metrics": (rule,)})
    seen = scene.read(Cohort("new", pods=pods), Cohort("old", pods=frozenset()), rules=rules)
    (values,) = seen.metrics
    assert dict(values.canary) == {f"{scene.name}/pod-c2": 3.0}
    assert values.canary_heard.unknown == {f"{scene.name}/pod-c1"}


def test_a_pod_that_moved_within_the_window_is_not_counted(scene):
    scene.pod("c1")
    scene.vllm("c1")
    scene.history.add(
        "kube_pod_info",
        lambda t: 1.0 if t < 1500 else None,
        namespace=scene.name,
        pod="pod-c1",
        node=f"{scene.name}-s4",
        instance="ksm:8080",
        job="ksm",
        uid="before",
    )
    seen = scene.evidence()
    assert all(s.is_silent for s in seen.sources)
    assert seen.warnings == ("pods on two nodes in the window, not counted: 1",)


def test_kube_pod_info_behind_renamed_labels(scene):
    scene.pod("c1", in_info=False)
    scene.vllm("c1")
    scene.history.add(
        "kube_pod_info",
        1.0,
        exported_namespace=scene.name,
        exported_pod="pod-c1",
        exported_node=f"{scene.name}-c1",
        namespace="monitoring",
        pod="ksm",
        node="elsewhere",
        instance="ksm:8080",
        job="ksm",
    )
    assert len(scene.source("vllm").canary) == 1


NODE = "{scene}-c1"
FOUND_BY = [
    pytest.param({"node": NODE, "instance": "10.0.0.1:80"}, id="a node label"),
    pytest.param({"instance": NODE}, id="an instance without a port"),
    pytest.param(
        {
            "namespace": "gateways",
            "pod": "gateway",
            "instance": "10.0.0.2:80",
            "exported_namespace": "{scene}",
            "exported_pod": "pod-c1",
        },
        id="a gateway that speaks of the pod",
    ),
]


@pytest.mark.parametrize("labels", FOUND_BY)
def test_a_node_finds_its_own_series(scene, labels):
    scene.pod("c1")
    told = {k: v.format(scene=scene.name) for k, v in labels.items()}
    http = {"status": "2xx", "handler": "/v1/completions", "job": "model"}
    scene.history.add("http_requests_total", grows(1.0), **http, **told)
    (seen,) = scene.source("vllm").canary
    assert seen.unit == f"{scene.name}-c1"
    assert seen.requests == pytest.approx(600, rel=0.02)


def test_triton_has_no_quantile_and_cancelled_is_no_failure(scene):
    scene.pod("c1")
    model = {"model": "bert", "version": "1"}
    scene.add("nv_inference_request_success", "c1", grows(1.0), **model)
    for reason, rate in (("REJECTED", 0.0), ("CANCELED", 5.0), ("BACKEND", 0.1), ("OTHER", 0.0)):
        scene.add("nv_inference_request_failure", "c1", grows(rate), reason=reason, **model)
    found = scene.source("triton")
    assert not found.has_latency
    seen = found.canary[0]
    assert (seen.requests, seen.errors, seen.successes) == pytest.approx((660, 60, 600), rel=0.02)


def test_istio_counts_a_request_once_and_in_milliseconds(scene):
    scene.pod("c1")
    for reporter in ("source", "destination"):
        for code, rate in (("200", 1.0), ("404", 0.1), ("503", 0.2), ("0", 0.1)):
            labels = {"reporter": reporter, "response_code": code}
            scene.add("istio_requests_total", "c1", grows(rate), **labels)
        for bound in ("500", "1000", "+Inf"):
            name = "istio_request_duration_milliseconds_bucket"
            scene.add(name, "c1", grows(1.4), le=bound, reporter=reporter)
    seen = scene.source("istio").canary[0]
    assert (seen.requests, seen.errors) == pytest.approx((840, 120), rel=0.02)
    assert seen.successes == pytest.approx(660, rel=0.02)
    assert [b for b, _ in seen.buckets] == [0.5, 1.0, math.inf]


@pytest.mark.parametrize("label", ["code", "status"])
def test_services_of_ones_own(scene, label):
    scene.pod("c1")
    scene.add("http_requests_total", "c1", grows(1.0), **{label: "200"})
    scene.add("http_requests_total", "c1", grows(0.1), **{label: "502"})
    seen = scene.evidence()
    assert [s.source for s in seen.sources if not s.is_silent] == ["http"]
    http = next(s for s in seen.sources if s.source == "http")
    counted = http.canary[0]
    assert (counted.requests, counted.errors) == pytest.approx((660, 60), rel=0.02)


def test_pods_and_matchers_as_cohorts(scene):
    for node in ("c1", "s4"):
        scene.pod(node)
        scene.vllm(node, bad=0.2 if node == "c1" else 0.0)
    scene.history.write(scene.server.url)
    by_pod = scene.read(
        Cohort("new", pods=frozenset({(scene.name, "pod-c1")})),
        Cohort("old", pods=frozenset({(scene.name, "pod-s4")})),
    )
    by_label = scene.read(
        Cohort("new", matchers=f'namespace="{scene.name}",pod="pod-c1"'),
        Cohort("old", matchers=f'namespace="{scene.name}",pod=~"pod-s.*"'),
    )
    for seen in (by_pod, by_label):
        vllm = next(s for s in seen.sources if s.source == "vllm")
        assert vllm.canary[0].errors == pytest.approx(120, rel=0.02)
        assert vllm.stable[0].errors == 0.0
        assert compare(seen, RULES).advice is Advice.ROLL_BACK


def test_a_query_that_prometheus_refuses_is_trouble_and_not_silence(scene):
    broken = RULES.sources["vllm"].model_copy(update={"errors": "sum by ($by) ({$match"})
    rules = RULES.model_copy(update={"sources": {"vllm": broken}})
    seen = scene.evidence(rules=rules)
    assert "parse error" in seen.sources[0].trouble
    assert compare(seen, rules).advice is Advice.CONTINUE
