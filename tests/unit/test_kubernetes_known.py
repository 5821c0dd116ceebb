"""Objects of one version are made once, as long as somebody holds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from breakfix.adapters.kubernetes.known import Known


@dataclass
class Meta:
    uid: str
    resource_version: str


@dataclass
class Theirs:
    metadata: Meta
    labels: dict[str, str] = field(default_factory=dict)


class Ours:
    def __init__(self, theirs: Theirs) -> None:
        self.labels = dict(theirs.labels)


def read(uid: str, version: str, **labels: str) -> Theirs:
    return Theirs(Meta(uid, version), labels)


def test_the_same_version_of_an_object_is_the_same_object() -> None:
    known: Known[Theirs, Ours] = Known(Ours)
    first = known.of(read("a", "1"))
    assert known.of(read("a", "1")) is first


def test_another_version_is_made_anew() -> None:
    known: Known[Theirs, Ours] = Known(Ours)
    first = known.of(read("a", "1", team="x"))
    second = known.of(read("a", "2", team="y"))
    assert (first.labels, second.labels) == ({"team": "x"}, {"team": "y"})


def test_another_object_of_the_same_version_is_another() -> None:
    known: Known[Theirs, Ours] = Known(Ours)
    first = known.of(read("a", "1", team="x"))
    assert known.of(read("b", "1", team="y")).labels == {"team": "y"}
    assert first.labels == {"team": "x"}


def test_what_has_no_version_is_never_taken_for_known() -> None:
    known: Known[Theirs, Ours] = Known(Ours)
    first = known.of(read("a", "", team="x"))
    second = known.of(read("a", "", team="y"))
    assert (first.labels, second.labels) == ({"team": "x"}, {"team": "y"})


def test_what_nobody_holds_is_forgotten() -> None:
    known: Known[Theirs, Ours] = Known(Ours)
    known.of(read("a", "1", team="x"))
    assert known.of(read("a", "1", team="y")).labels == {"team": "y"}
