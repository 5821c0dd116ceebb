"""The trigger of a waiting case: it survives being stored, starts quietly, and fires once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk.module_loading import import_string

from breakfix.flow.stages import Wait, WaitKind
from breakfix_airflow import triggers
from breakfix_airflow.batching import Batcher, Look
from breakfix_airflow.triggers import QUIET_S, CaseTrigger
from tests.virtual_time import run

pytestmark = pytest.mark.airflow

DEADLINE = datetime(2030, 1, 1, tzinfo=UTC)
WAIT = Wait(
    WaitKind.POD_FINISHED,
    "c1",
    "gpu-1",
    DEADLINE,
    not_before=DEADLINE - timedelta(hours=1),
    pod="breakfix/diag-c1",
)


def test_it_comes_back_from_the_database_as_it_went_in():
    path, kwargs = CaseTrigger(WAIT.to_json()).serialize()
    again = import_string(path)(**json.loads(json.dumps(kwargs)))
    assert isinstance(again, CaseTrigger)
    assert Wait.from_json(again.wait) == WAIT


def test_it_fires_once_and_not_in_its_first_seconds():
    async def look(waits):
        return Look([True] * len(waits), 1.0)

    async def main(loop):
        triggers._batchers[loop] = Batcher(look, now=loop.now)
        events = [e.payload async for e in CaseTrigger(WAIT.to_json()).run()]
        return events, loop.time()

    events, took_s = run(main)
    assert events == [{"reason": "over", "kind": "pod_finished"}]
    assert took_s >= QUIET_S >= 6.0


async def test_all_triggers_of_a_loop_share_one_batcher():
    assert triggers.batcher() is triggers.batcher()


def test_another_loop_has_a_batcher_of_its_own():
    async def own():
        return triggers.batcher()

    assert asyncio.run(own()) is not asyncio.run(own())
