"""When the calendar lets a node be taken out: the windows of the policy, on the wall's clock. Pure.

Each window is worked out as intervals of real instants, one for each day on which it begins. Where
the clock is put forward, a time that does not exist is the moment of the change; where it is put
back, a time that comes twice begins a window the first time, and ends a blocked one the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from breakfix.model import Node
from breakfix.policy_limits import DAYS, Window, minutes_of

_DAY = timedelta(days=1)
_AHEAD_DAYS = 400  # a window further away than that opens for nobody who asks today


@dataclass(frozen=True, slots=True)
class Closed:
    """The calendar says no: why, and when it says yes again (None: not within a year)."""

    text: str
    opens_at: datetime | None


def of_node(node: Node, windows: Sequence[Window]) -> tuple[int, ...]:
    """The windows that speak of this node, by their numbers in the policy."""
    own = {s.kind: s.value for s in node.scopes()}
    return tuple(
        number
        for number, w in enumerate(windows)
        if all(own.get(kind) == value for kind, value in w.scope.items())
        and all(node.labels.get(k) == v for k, v in w.labels.items())
    )


def closed(windows: Sequence[Window], now: datetime) -> Closed | None:
    """Why no node may be taken out now by these windows; None when one may."""
    why = _why_closed(windows, now)
    if not why:
        return None
    opens_at = opening(windows, now)
    until = f"opens at {opens_at:%Y-%m-%d %H:%M} UTC" if opens_at else "opens within no year"
    return Closed(f"{why}; {until}", opens_at)


def opening(windows: Sequence[Window], now: datetime) -> datetime | None:
    """The first instant after now at which nodes may be taken out."""
    near = _DAY * 9
    for first, last in ((-_DAY * 2, near), (near, _DAY * _AHEAD_DAYS)):
        found = sorted(t for w in windows for t in _changes(w, now + first, now + last) if t > now)
        for instant in found:
            if not _why_closed(windows, instant):
                return instant
    return None


def _why_closed(windows: Sequence[Window], now: datetime) -> str:
    for window in windows:
        if window.kind == "blocked" and _is_in(window, now):
            return f"in a blocked window ({words(window)})"
    allowed = [w for w in windows if w.kind == "allowed"]
    if not allowed or any(_is_in(w, now) for w in allowed):
        return ""
    return f"outside the allowed windows ({'; '.join(words(w) for w in allowed[:2])})"


def words(window: Window) -> str:
    """The window as a person would say it."""
    days = "daily" if len(window.days) == len(DAYS) else ", ".join(window.days)
    dates = f" {window.first_day or ''}..{window.last_day or ''}"
    dates = dates if window.first_day or window.last_day else ""
    reason = f": {window.reason}" if window.reason else ""
    return f"{days} {window.start}-{window.end} {window.time_zone}{dates}{reason}"


def _is_in(window: Window, now: datetime) -> bool:
    begun = _occurrences(window, now - _DAY * 2, now + _DAY)
    return any(start <= now < end for start, end in begun)


def _changes(window: Window, since: datetime, until: datetime) -> Iterator[datetime]:
    """The instants at which it may become allowed: its beginnings, or the ends of a block."""
    for start, end in _occurrences(window, since, until):
        yield start if window.kind == "allowed" else end


def _occurrences(
    window: Window, since: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Its intervals that begin on the days from one instant's to the other's."""
    zone = ZoneInfo(window.time_zone)
    day, last = since.astimezone(zone).date(), until.astimezone(zone).date()
    start, end = minutes_of(window.start), minutes_of(window.end)
    if end <= start:
        end += 24 * 60
    while day <= last:
        if _begins_on(window, day):
            yield (
                _instant(day, start, zone, is_later=False),
                _instant(day, end, zone, is_later=window.kind == "blocked"),
            )
        day += _DAY


def _begins_on(window: Window, day: date) -> bool:
    if window.first_day and day < window.first_day:
        return False
    if window.last_day and day > window.last_day:
        return False
    return DAYS[day.weekday()] in window.days


def _instant(day: date, minutes: int, zone: ZoneInfo, *, is_later: bool) -> datetime:
    """When the wall shows that time. `is_later`: the second of two, where the clock is put back."""
    local = datetime.combine(day, time()) + timedelta(minutes=minutes)
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first > second:
        return _change(second, first, zone)
    return second if is_later else first


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The moment between the two at which the clock was put forward, to the second."""
    old = before.astimezone(zone).utcoffset()
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == old:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)
