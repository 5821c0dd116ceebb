"""Whether a pod may run on a node, and what a drain's helpers say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from simfleet.clock import rfc3339
from simfleet.kube.faults import ApiFault, FaultKind, Faults
from simfleet.kube.placement import covers, lacking, quantity, why_not
from simfleet.kube.protobuf import delete_options
from simfleet.kube.tables import human_age

NODE = {
    "metadata": {"name": "n1", "labels": {"pool": "a"}},
    "spec": {"taints": [{"key": "gpu", "value": "x", "effect": "NoSchedule"}]},
    "status": {"allocatable": {"nvidia.com/gpu": "8", "pods": "110"}},
}


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("2Gi", 2**31), ("8", 8), ("1k", 1000), ("1e3", 1000)]
)
def test_quantities(text, number):
    assert quantity(text) == number


@pytest.mark.parametrize(
    ("toleration", "covered"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "value": "x"}, True),
        ({"key": "gpu", "value": "y"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_a_toleration_covers_a_taint(toleration, covered):
    assert covers(toleration, NODE["spec"]["taints"][0]) is covered


@pytest.mark.parametrize(
    ("spec", "node_spec", "reason"),
    [
        ({}, {}, None),
        ({}, NODE["spec"], "node(s) had untolerated taint(s)"),
        ({}, {"unschedulable": True}, "node(s) were unschedulable"),
        (
            {"nodeSelector": {"pool": "b"}},
            {},
            "node(s) didn't match Pod's node affinity/selector",
        ),
    ],
)
def test_why_a_node_is_out_of_the_question(spec, node_spec, reason):
    assert why_not(spec, NODE | {"spec": node_spec}) == reason


def test_gpus_in_use_are_not_given_twice():
    assert lacking({"nvidia.com/gpu": 4}, {"nvidia.com/gpu": 6}, NODE) == ["nvidia.com/gpu"]
    assert lacking({"nvidia.com/gpu": 2}, {"nvidia.com/gpu": 6}, NODE) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "5s"),
        (299, "4m59s"),
        (1560, "26m"),
        (4 * 3600 + 60, "4h1m"),
        (90000, "25h"),
        (9e5, "10d"),
    ],
)
def test_ages_read_as_kubectl_writes_them(seconds, text):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert human_age(rfc3339(now - timedelta(seconds=seconds)), now) == text


def test_delete_options_are_read_from_protobuf():
    raw = bytes([0x08, 1, 0x22, 10]) + b"Background"
    body = b"k8s\x00" + bytes([0x12, len(raw)]) + raw
    assert delete_options(body) == {"gracePeriodSeconds": 1, "propagationPolicy": "Background"}
    with pytest.raises(ValueError, match="not a Kubernetes protobuf body"):
        delete_options(b"{}")


def test_a_fault_hits_as_often_as_it_shall():
    faults = Faults()
    rule = faults.add(ApiFault(FaultKind.TOO_MANY, method="GET", path="/api/v1/nodes", times=1))
    assert faults.effect("PATCH", "/api/v1/nodes/a").error is None
    assert faults.effect("GET", "/api/v1/nodes").error.code == 429
    assert faults.effect("GET", "/api/v1/nodes").error is None
    assert rule.hits == 1
