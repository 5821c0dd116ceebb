"""How what stands beside the cluster (BMCs, webhooks) may behave, for tests of who relies on it."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from aiohttp import web

HANG_S = 3600.0
_LOOK_S = 0.1


class Mode(StrEnum):
    """What a request that shall change something meets."""

    OBEY = "obey"
    LIE = "lie"  # says yes and does nothing
    HANG = "hang"  # never answers, and does nothing
    FAIL = "fail"  # 503, and does nothing
    REFUSE = "refuse"  # 403
    ACT_AND_FAIL = "act_and_fail"  # does it, and answers 500
    ACT_AND_HANG = "act_and_hang"  # does it, and never answers


_ACTS = frozenset({Mode.OBEY, Mode.ACT_AND_FAIL, Mode.ACT_AND_HANG})
_STATUS = {Mode.FAIL: 503, Mode.REFUSE: 403, Mode.ACT_AND_FAIL: 500}


def acts(mode: Mode) -> bool:
    """Whether the thing is done in that mode."""
    return mode in _ACTS


async def trouble(mode: Mode, request: web.Request) -> web.Response | None:
    """What the mode answers instead of a good answer; None where that is good."""
    if mode in {Mode.HANG, Mode.ACT_AND_HANG}:
        await _until_gone(request)
    status = _STATUS.get(mode)
    if status is None:
        return None
    return web.json_response({"error": {"message": f"mode {mode}"}}, status=status)


async def _until_gone(request: web.Request) -> None:
    """As long as the other side waits."""
    for _ in range(int(HANG_S / _LOOK_S)):
        if request.transport is None or request.transport.is_closing():
            return
        await asyncio.sleep(_LOOK_S)
