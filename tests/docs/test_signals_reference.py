"""docs/signals.md is what the default policy says."""

from __future__ import annotations

import pytest

from breakfix.policy import parse_policy
from breakfix.wiring import default_policy_text
from dev.signals_reference import PAGE, main, page

POLICY = parse_policy(default_policy_text())


def test_the_reference_is_not_stale() -> None:
    assert PAGE.read_text() == page(POLICY), "run python -m dev.signals_reference"


def test_every_signal_and_xid_is_in_it() -> None:
    text = page(POLICY)
    assert [s.name for s in POLICY.signals if f"| `{s.name}` |" not in text] == []
    assert [x for x in POLICY.xids if f"\n| {x} |" not in text] == []


def test_a_stale_page_is_told(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dev.signals_reference.PAGE", tmp_path / "signals.md")
    assert main(["--check"]) == 1
    assert "python -m dev.signals_reference" in capsys.readouterr().err
    assert (main([]), main(["--check"])) == (0, 0)
