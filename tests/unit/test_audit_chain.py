"""The hash chain itself: any entry goes in, any change is found, what was seen is recognised."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix import record
from breakfix.adapters.ledger.chain import GENESIS, first_fault, json_text, plain, seal, storable
from breakfix.model import FailureClass, Scope, ScopeKind
from tests.fakes_ledger import FakeLedger

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=[]), max_size=8)  # NUL and surrogates included
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def a_chain(length):
    entries, head = [], (0, GENESIS)
    for i in range(length):
        entries.append(
            seal(head, at=NOW, actor="a", event="test.event", subject=f"s{i}", detail={"i": i})
        )
        head = (entries[-1].seq, entries[-1].hash)
    return entries, head


@given(detail=st.dictionaries(texts, values, max_size=4), actor=texts, subject=texts)
def test_whatever_is_told_can_be_sealed_stored_and_checked(detail, actor, subject):
    entry = seal((0, GENESIS), at=NOW, actor=actor, event="e", subject=subject, detail=detail)
    assert first_fault([entry], (1, entry.hash)) == (1, "")
    assert "\0" not in entry.actor + entry.subject + entry.detail
    (entry.actor + entry.subject + entry.detail).encode()


@given(value=values)
def test_what_was_stored_once_is_stored_the_same_for_ever(value):
    assert json_text(plain(value)) == json_text(value)


@given(
    place=st.integers(0, 5),
    changed=st.sampled_from(
        [
            {"seq": 99},
            {"at": NOW + timedelta(microseconds=1)},
            {"actor": "b"},
            {"event": "test.other"},
            {"subject": "x"},
            {"detail": '{"i":7}'},
            {"previous_hash": "f" * 64},
            {"hash": "f" * 64},
        ]
    ),
)
def test_every_changed_field_of_every_entry_is_found(place, changed):
    entries, head = a_chain(6)
    entries[place] = replace(entries[place], **changed)
    good, fault = first_fault(entries, head)
    assert good in {place, place + 1}
    assert fault


@given(st.permutations(range(5)))
def test_every_other_order_is_found(order):
    entries, head = a_chain(5)
    _, fault = first_fault([entries[i] for i in order], head)
    assert bool(fault) == (list(order) != list(range(5)))


@given(st.sets(st.integers(0, 5), min_size=1))
def test_every_missing_entry_is_found(gone):
    entries, head = a_chain(6)
    kept = [e for i, e in enumerate(entries) if i not in gone]
    good, fault = first_fault(kept, head)
    assert (good, bool(fault)) == (min(gone), True)


def test_an_entry_resealed_in_place_is_found_by_the_next_one():
    entries, head = a_chain(3)
    entries[1] = seal(
        (1, entries[0].hash), at=NOW, actor="x", event="forged", subject="s", detail={}
    )
    good, fault = first_fault(entries, head)
    assert good == 2
    assert "entry 3 does not follow" in fault


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("plain ünï", "plain ünï", id="text stays"),
        pytest.param("a\0b", "a\ufffdb", id="NUL is replaced"),
        pytest.param("a\ud800b", "a?b", id="half a character is replaced"),
    ],
)
def test_text_is_made_storable(text, kept):
    assert storable(text) == kept


def test_our_own_types_become_plain_json():
    value = {"s": Scope(ScopeKind.RACK, "r1"), "c": FailureClass.THERMAL, "t": (1, 2), "at": NOW}
    assert plain(value) == {
        "s": {"kind": "rack", "value": "r1"},
        "c": "thermal",
        "t": [1, 2],
        "at": "2026-01-02T03:04:05.678901Z",
    }


# --------------------------------------------------------------------------- record


@pytest.fixture
def ledger():
    ledger = FakeLedger("test")
    for i in range(5):
        ledger.audit("e", f"s{i}", actor="a", detail={"i": i}, now=NOW)
    return ledger


def test_a_whole_chain_with_a_known_head_is_whole(ledger):
    known = ledger.head()
    ledger.audit("e", "s", actor="a", detail={}, now=NOW)
    check = record.verify(ledger, known)
    assert (check.entries, check.fault, check.is_whole) == (6, "", True)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        pytest.param((9, "f" * 64), "older copy", id="an older backup"),
        pytest.param((3, "f" * 64), "another history", id="another ledger"),
        pytest.param((0, GENESIS), "", id="nothing was known"),
    ],
)
def test_a_ledger_is_recognised_by_what_was_seen_of_it(ledger, known, said):
    fault = record.verify(ledger, known).fault
    assert said in fault
    assert bool(fault) == bool(said)
