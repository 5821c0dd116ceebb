"""Every fault of the list has a test that says what was lost, and the page says so."""

from __future__ import annotations

import pytest

from dev.reliability import Fault, catalogue, fault_tests, main, missing


def test_every_fault_has_a_test():
    assert missing(catalogue(), fault_tests()) == []


def test_a_fault_without_a_test_is_named():
    assert missing([Fault("f99", "something", "nowhere")], fault_tests()) == ["f99"]


def test_every_fault_test_says_what_happens_and_what_was_lost():
    wrong = [f"{t.file}: {t.name} {t.wrong}" for t in fault_tests() if t.wrong]
    assert not wrong


def test_the_page_is_not_stale():
    assert main(["--check"]) == 0


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('"""It breaks.\n\n    Lost: nothing; it goes on.\n    """', ""),
        ('"""It breaks."""', "has no line"),
        ("assert True", "has no docstring"),
    ],
    ids=["whole", "no word of the loss", "no docstring"],
)
def test_a_docstring_is_read(tmp_path, text, wrong):
    (tmp_path / "test_x.py").write_text(f"def test_f99_x():\n    {text}\n")
    (found,) = fault_tests(tmp_path)
    assert found.wrong.startswith(wrong)
    assert bool(found.wrong) == bool(wrong)
