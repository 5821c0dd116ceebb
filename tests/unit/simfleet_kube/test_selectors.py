"""Label and field selectors."""

from __future__ import annotations

import pytest

from simfleet.kube.errors import ApiError
from simfleet.kube.selectors import (
    fields_match,
    from_label_selector,
    labels_match,
    parse_fields,
    parse_labels,
)

LABELS = {"zone": "a", "count": "8", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("zone=a", True),
        ("zone==b", False),
        ("zone!=b", True),
        ("absent!=b", True),
        ("zone in (a, b)", True),
        ("zone notin (a)", False),
        ("absent notin (a)", True),
        ("zone", True),
        ("!zone", False),
        ("!absent", True),
        ("count>4", True),
        ("count<4", False),
        ("zone>4", False),
        ("empty=", True),
        ("zone=a,count=8", True),
        ("zone=a,count=9", False),
    ],
)
def test_a_label_selector_matches_as_on_a_real_server(text, matches):
    assert labels_match(parse_labels(text), LABELS) is matches


def test_no_selector_is_nothing_and_an_empty_one_is_everything():
    assert from_label_selector(None) is None
    assert labels_match(from_label_selector({}), LABELS)


def test_expressions_of_a_label_selector_object_are_read():
    expressions = [{"key": "zone", "operator": "In", "values": ["a"]}]
    assert labels_match(from_label_selector({"matchExpressions": expressions}), LABELS)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("spec.nodeName=n1", True),
        ("spec.nodeName!=n1", False),
        ("status.phase=Running,spec.nodeName=n1", True),
        ("status.podIP=", True),
        ("spec.hostNetwork=false", True),
    ],
)
def test_a_field_selector_matches_as_on_a_real_server(text, matches):
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}
    assert fields_match(parse_fields(text, "Pod"), pod) is matches


def test_a_field_that_is_not_indexed_is_refused():
    with pytest.raises(ApiError, match=r"field label not supported: spec\.priority"):
        parse_fields("spec.priority=0", "Pod")
