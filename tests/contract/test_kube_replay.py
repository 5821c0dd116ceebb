"""The simulated API against the recordings of a real API server 1.36.

Every recorded step is played in its order against a fresh simulated API, and status, headers
and body are compared. What is not played stands in `kube_replay/left_out.py` with its reason,
what the recordings do not show but presuppose in `kube_replay/given.py`.
"""

from __future__ import annotations

import functools
import json

import pytest

from simfleet.kube import SimKube
from tests.contract.kube_replay.commands import Skipped
from tests.contract.kube_replay.comparing import Mismatch
from tests.contract.kube_replay.given import DURING, GIVEN
from tests.contract.kube_replay.left_out import LEFT_OUT
from tests.contract.kube_replay.player import RECORDINGS, Player, recorded_tokens

FILES = sorted(path.stem for path in RECORDINGS.glob("*.json"))


def _left_out(name: str) -> dict[int, str]:
    return {
        number: reason
        for first, last, reason in LEFT_OUT.get(name, ())
        for number in range(first, last + 1)
    }


def _step_notes(name: str) -> list[str]:
    return [step["note"] for step in json.loads((RECORDINGS / f"{name}.json").read_text())]


CASES = [
    pytest.param(name, number, id=f"{name}-{number:03d}-{note[:60]}")
    for name in FILES
    for number, note in enumerate(_step_notes(name))
    if number not in _left_out(name)
]


@functools.cache
def played(name: str) -> dict[int, str | bool | None]:
    """For each step: what went wrong, or whether the body was compared in full."""
    skipped = _left_out(name)
    outcome: dict[int, str | bool | None] = {}
    with SimKube(tokens=recorded_tokens(), future_wait_s=0.1, seed=1) as kube:
        player = Player(name, kube)
        for number in range(len(player.steps)):
            if given := GIVEN.get(name, {}).get(number):
                given(player)
            if number in skipped:
                continue
            try:
                outcome[number] = player.play(number, DURING.get(name, {}).get(number))
            except Mismatch as error:
                outcome[number] = str(error)
            except Skipped:
                outcome[number] = None
    return outcome


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_recorded_step_gets_the_recorded_answer(name, number):
    outcome = played(name)[number]
    if outcome is None:
        pytest.skip("kubectl is not installed")
    assert isinstance(outcome, bool), outcome


def test_what_is_left_out_is_real_and_has_a_reason():
    for name, ranges in LEFT_OUT.items():
        steps = len(_step_notes(name))
        assert all(0 <= first <= last < steps and reason for first, last, reason in ranges)


def test_nearly_all_steps_are_replayed(capsys):
    total = sum(len(_step_notes(name)) for name in FILES)
    outcomes = [outcome for name in FILES for outcome in played(name).values()]
    in_full = sum(1 for outcome in outcomes if outcome is True)
    with capsys.disabled():
        text = f"{len(outcomes)} of {total} recorded steps replayed, {in_full} compared in full"
        print(f"\n{text}")  # noqa: T201
    assert len(outcomes) >= 0.85 * total
