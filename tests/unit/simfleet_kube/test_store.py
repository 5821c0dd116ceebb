"""The store: versions, conflicts, history."""

from __future__ import annotations

import pytest

from simfleet.kube.errors import ApiError
from simfleet.kube.store import Store


@pytest.fixture
def store():
    made = Store(seed=1)
    for name in ("b", "a"):
        made.create("Node", {"metadata": {"name": name, "labels": {"n": name}}, "spec": {}})
    return made


def names(objects):
    return [one["metadata"]["name"] for one in objects]


def test_lists_are_sorted_and_selected(store):
    assert names(store.list("Node")) == ["a", "b"]
    assert names(store.list("Node", label_selector="n=b")) == ["b"]
    assert names(store.list("Node", field_selector="metadata.name=a")) == ["a"]


def test_every_write_raises_the_version_and_no_change_is_no_write(store):
    before = store.version
    same = store.mutate("Node", "", "a", lambda node: None)
    assert store.version == before
    changed = store.mutate("Node", "", "a", lambda node: node["spec"].update(unschedulable=True))
    assert int(changed["metadata"]["resourceVersion"]) == store.version == before + 1
    assert "unschedulable" not in same["spec"]


def test_an_update_of_an_old_version_is_a_conflict(store):
    old = store.get("Node", "", "a")
    store.mutate("Node", "", "a", lambda node: node["spec"].update(unschedulable=True))
    with pytest.raises(ApiError) as refusal:
        store.update("Node", old)
    assert refusal.value.code == 409


def test_what_is_missing_and_what_exists_is_said(store):
    with pytest.raises(ApiError, match='nodes "x" not found'):
        store.get("Node", "", "x")
    with pytest.raises(ApiError, match='nodes "a" already exists'):
        store.create("Node", {"metadata": {"name": "a"}})


def test_the_past_can_be_listed_until_it_is_compacted(store):
    then = store.version
    store.delete("Node", "", "a")
    store.create("Node", {"metadata": {"name": "c"}, "spec": {}})
    assert [name for (_, name), _ in store.objects_at("Node", then)] == ["a", "b"]
    assert [change.type for change in store.changes_since("Node", then)] == ["DELETED", "ADDED"]
    store.compact(store.version)
    with pytest.raises(ApiError) as refusal:
        store.objects_at("Node", then)
    assert refusal.value.code == 410


def test_a_subscription_hears_what_follows(store):
    subscription = store.subscribe("Node")
    store.create("Namespace", {"metadata": {"name": "x"}})
    store.delete("Node", "", "a")
    assert [(one.type, one.name) for one in subscription.drain()] == [("DELETED", "a")]
    subscription.close()
    store.delete("Node", "", "b")
    assert subscription.drain() == []


def test_pods_are_found_by_their_node(store):
    metadata = {"name": "p", "namespace": "default"}
    store.create("Pod", {"metadata": metadata, "spec": {"nodeName": "a"}, "status": {}})
    assert names(store.pods_on("a")) == ["p"]
    store.delete("Pod", "default", "p")
    assert store.pods_on("a") == []


def test_a_copy_of_a_store_goes_its_own_way(store):
    other = Store()
    other.load(store.snapshot())
    other.delete("Node", "", "a")
    assert names(store.list("Node")) == ["a", "b"]
    assert names(other.list("Node")) == ["b"]
