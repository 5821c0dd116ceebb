"""The examples of docs/decide.md are what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from breakfix.model import Reading
from tests.observations import reading, verdict, xid

PAGE = Path(__file__).resolve().parents[2] / "docs/decide.md"
ROWS = re.findall(
    r"^\| (`(?:xid \d+|[a-z_]+)`.*?) \| (\w+) \| ([\d.]+) \| (\w+) \|$",
    PAGE.read_text(encoding="utf-8"),
    re.MULTILINE,
)


def seen(words: str) -> list[Reading]:
    found = []
    for name in re.findall(r"`([^`]+)`", words):
        kind, _, code = name.partition(" ")
        found.append(xid(code) if kind == "xid" else reading(name, 99))
    return found


@pytest.mark.parametrize(("words", "failure_class", "confidence", "action"), ROWS)
def test_the_documented_examples_are_true(
    words: str, failure_class: str, confidence: str, action: str
) -> None:
    made = verdict(*seen(words))
    assert str(made.failure_class or "none") == failure_class
    assert made.confidence == pytest.approx(float(confidence))
    assert made.recommended_action == action


def test_there_are_examples() -> None:
    assert len(ROWS) >= 10
