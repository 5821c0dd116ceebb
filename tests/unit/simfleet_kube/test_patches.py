"""Strategic merge, merge and JSON patches."""

from __future__ import annotations

import pytest

from simfleet.kube.patches import PatchFailed, json_patch, merge_patch, strategic_patch

NODE = {
    "metadata": {"labels": {"a": "1", "b": "2"}},
    "spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]},
    "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "ok"}]},
}


@pytest.mark.parametrize(
    ("patch", "path", "becomes"),
    [
        pytest.param(
            {"metadata": {"labels": {"a": None, "c": "3"}}},
            ("metadata", "labels"),
            {"b": "2", "c": "3"},
            id="null removes a label, others stay",
        ),
        pytest.param(
            {"spec": {"taints": [{"key": "y", "effect": "NoExecute"}]}},
            ("spec", "taints"),
            [{"key": "y", "effect": "NoExecute"}],
            id="taints have no merge key and are replaced",
        ),
        pytest.param(
            {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
            ("status", "conditions"),
            [{"type": "Ready", "status": "False", "reason": "ok"}],
            id="conditions merge by their type",
        ),
        pytest.param(
            {"status": {"conditions": [{"type": "Ready", "$patch": "delete"}]}},
            ("status", "conditions"),
            [],
            id="a condition is deleted by directive",
        ),
    ],
)
def test_a_strategic_patch(patch, path, becomes):
    found = strategic_patch("Node", NODE, patch)
    for key in path:
        found = found[key]
    assert found == becomes


def test_containers_of_a_pod_merge_by_name():
    pod = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}
    patch = {"spec": {"containers": [{"name": "b", "image": "3"}]}}
    images = [one["image"] for one in strategic_patch("Pod", pod, patch)["spec"]["containers"]]
    assert images == ["1", "3"]


def test_a_merge_patch_replaces_lists():
    assert merge_patch(NODE, {"spec": {"taints": []}})["spec"]["taints"] == []
    assert NODE["spec"]["taints"]


@pytest.mark.parametrize(
    ("operations", "becomes"),
    [
        ([{"op": "add", "path": "/a~1b", "value": 1}], {"k": [1, 2], "a/b": 1}),
        ([{"op": "remove", "path": "/k/0"}], {"k": [2]}),
        ([{"op": "add", "path": "/k/-", "value": 3}], {"k": [1, 2, 3]}),
        ([{"op": "replace", "path": "/new", "value": 3}], {"k": [1, 2], "new": 3}),
        ([{"op": "move", "from": "/k", "path": "/m"}], {"m": [1, 2]}),
        ([{"op": "test", "path": "/absent", "value": None}], {"k": [1, 2]}),
    ],
)
def test_a_json_patch(operations, becomes):
    assert json_patch({"k": [1, 2]}, operations) == becomes


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/k", "value": 3},
        {"op": "remove", "path": "/absent"},
        {"op": "remove", "path": "/k/7"},
        {"op": "add", "path": "/absent/-", "value": 1},
        {"op": "add", "path": "no/slash", "value": 1},
        {"op": "merge", "path": "/k", "value": 1},
    ],
)
def test_a_json_patch_that_cannot_be_done(operation):
    with pytest.raises(PatchFailed):
        json_patch({"k": [1, 2]}, [operation])
