"""The logs of pods: lines with their times, and whether more may come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from simfleet.clock import parse_time, rfc3339_micro

FOLLOW_POLL_S = 0.05


@dataclass(slots=True)
class PodLog:
    """What one container has printed."""

    lines: list[tuple[datetime, str]] = field(default_factory=list)
    ended: bool = False

    def write(self, text: str, when: datetime) -> None:
        """Add lines."""
        self.lines += [(when, line) for line in text.splitlines()]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What part of a log is asked for."""

    tail: int | None = None
    timestamps: bool = False
    follow: bool = False
    since: datetime | None = None

    def render(self, when: datetime, line: str) -> bytes:
        """One line as it goes out."""
        stamp = f"{rfc3339_micro(when)} " if self.timestamps else ""
        return f"{stamp}{line}\n".encode()


def read_options(query: Mapping[str, str], tail: int | None, now: datetime) -> LogOptions:
    """The options of a log request; times as the API takes them."""
    since = None
    if seconds := query.get("sinceSeconds"):
        since = now - timedelta(seconds=int(seconds))
    elif text := query.get("sinceTime"):
        since = parse_time(text)
    flags = {
        name: query.get(name, "").lower() in ("1", "true") for name in ("timestamps", "follow")
    }
    return LogOptions(tail=tail, since=since, **flags)


def select(log: PodLog, options: LogOptions) -> list[tuple[datetime, str]]:
    """The lines there are now."""
    lines = [one for one in log.lines if options.since is None or one[0] >= options.since]
    if options.tail is None:
        return lines
    return lines[-options.tail :] if options.tail else []


async def stream(log: PodLog, options: LogOptions) -> AsyncIterator[bytes]:
    """The lines there are, and with `follow` those that come until the container ends."""
    for when, line in select(log, options):
        yield options.render(when, line)
    seen = len(log.lines)
    while options.follow and not (log.ended and seen == len(log.lines)):
        await asyncio.sleep(FOLLOW_POLL_S)
        for when, line in log.lines[seen:]:
            yield options.render(when, line)
        seen = len(log.lines)
