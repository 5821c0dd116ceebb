"""The policy follows its file: an edit is taken whole, at the next look, or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from breakfix.adapters.policy_file import PolicyFile
from breakfix.errors import SettingsError
from breakfix.policy import parse_policy
from breakfix.wiring import default_policy_text

DEFAULT = default_policy_text()
LONG_AGO = 1_700_000_000
FIRST = "version: first\nlimits: {max_attempts: 3}\n"
SECOND = "version: second\nlimits: {max_attempts: 5}\n"
BROKEN = "version: third\nlimits: {max_attempts: 0}\n"
HALF = "version: second\nlimits: {max_att"


@pytest.fixture
def overlay(tmp_path):
    path = tmp_path / "overlay.yaml"
    write(path, FIRST)
    return path


def write(path, text, *, at=LONG_AGO):
    path.write_text(text)
    os.utime(path, (at, at))


@pytest.fixture
def file(overlay):
    return PolicyFile(DEFAULT, overlay)


def test_without_an_overlay_the_default_is_in_force():
    loaded = PolicyFile(DEFAULT).current()
    assert (loaded.policy.hash, loaded.note) == (parse_policy(DEFAULT).hash, "")


def test_a_changed_overlay_is_in_force_at_the_next_look(file, overlay):
    assert file.current().policy.version == "first"
    write(overlay, SECOND)
    loaded = file.current()
    assert (loaded.policy.version, loaded.policy.limits.max_attempts) == ("second", 5)
    assert loaded.note == ""
    assert loaded.policy.hash == parse_policy(DEFAULT, SECOND).hash


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(BROKEN, "limits.max_attempts", id="a wrong value"),
        pytest.param(HALF, "not valid YAML", id="half of a text"),
        pytest.param("", "empty", id="nothing"),
        pytest.param("  \n", "empty", id="blank lines"),
        pytest.param("- 1\n", "must be a map", id="no map"),
        pytest.param("signals: [ecc_dbe]\n", "needs its `name`", id="a signal that is no map"),
        pytest.param("version: 2001-99-99\n", "month must be", id="a day that is none"),
        pytest.param("version: a\nversion: b\n", ":2:1: version: is already", id="a key twice"),
    ],
)
def test_a_broken_edit_leaves_the_last_good_policy_and_says_so(file, overlay, text, says):
    good = file.current().policy
    write(overlay, text)
    for _ in range(2):
        loaded = file.current()
        assert loaded.policy is good
        assert says in loaded.note
        assert good.hash[:12] in loaded.note
    write(overlay, SECOND)
    assert (file.current().policy.version, file.current().note) == ("second", "")


def test_an_overlay_that_is_gone_leaves_the_last_good_policy(file, overlay):
    good = file.current().policy
    overlay.unlink()
    loaded = file.current()
    assert loaded.policy is good
    assert "cannot read" in loaded.note


def test_text_that_is_no_utf_8_leaves_the_last_good_policy(file, overlay):
    good = file.current().policy
    overlay.write_bytes(b"version: \xff\n")
    assert file.current().policy is good
    assert "not UTF-8" in file.current().note


def test_an_edit_of_this_very_moment_waits_for_the_next_look(overlay):
    now = float(LONG_AGO)
    file = PolicyFile(DEFAULT, overlay, settle_s=2.0, now=lambda: now)
    file.current()
    write(overlay, SECOND, at=LONG_AGO + 10)
    now = LONG_AGO + 11.0
    early = file.current()
    assert (early.policy.version, "just now" in early.note) == ("first", True)
    now = LONG_AGO + 12.0
    assert file.current().policy.version == "second"


def test_an_overlay_renamed_into_place_is_taken(file, overlay, tmp_path):
    file.current()
    write(tmp_path / "new.yaml", SECOND)
    (tmp_path / "new.yaml").replace(overlay)
    assert file.current().policy.version == "second"


def test_the_first_look_at_a_broken_overlay_is_an_error(overlay):
    write(overlay, BROKEN)
    with pytest.raises(SettingsError, match="max_attempts"):
        PolicyFile(DEFAULT, overlay).current()


def test_a_new_process_goes_on_under_the_kept_overlay(overlay, tmp_path):
    kept = tmp_path / "kept.yaml"
    hash_ = PolicyFile(DEFAULT, overlay, kept=kept).current().policy.hash
    write(overlay, BROKEN)
    loaded = PolicyFile(DEFAULT, overlay, kept=kept).current()
    assert loaded.policy.hash == hash_
    assert "max_attempts" in loaded.note
    assert kept.read_text() == FIRST


def test_a_kept_overlay_that_is_broken_too_is_an_error(overlay, tmp_path):
    kept = tmp_path / "kept.yaml"
    kept.write_text(HALF)
    write(overlay, BROKEN)
    with pytest.raises(SettingsError, match="max_attempts"):
        PolicyFile(DEFAULT, overlay, kept=kept).current()


def test_a_folder_that_cannot_be_written_keeps_nothing_and_goes_on(overlay, tmp_path):
    file = PolicyFile(DEFAULT, overlay, kept=tmp_path / "nowhere" / "kept.yaml")
    assert file.current().policy.version == "first"


def test_threads_see_one_whole_policy_or_the_other(file, overlay):
    file.current()
    hashes = {parse_policy(DEFAULT, t).hash for t in (FIRST, SECOND)}

    def look(turn):
        write(overlay, SECOND if turn % 2 else FIRST)
        return file.current().policy.hash

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look, range(64))) <= hashes
