"""How the ledger's columns are stored: words, instants, JSON as canonical text."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import DateTime, Text, TypeDecorator

from breakfix.adapters.ledger.chain import json_text, storable
from breakfix.model import Scope, ScopeKind


class Words(TypeDecorator[str]):
    """Text from outside, made storable."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else storable(value)


class Word(TypeDecorator[StrEnum]):
    """A member of one enumeration, stored as its value."""

    impl = Text
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: StrEnum | None, dialect: object) -> str | None:
        return None if value is None else self.words(value).value

    def process_result_value(self, value: str | None, dialect: object) -> StrEnum | None:
        return None if value is None else self.words(value)


class Json(TypeDecorator[Any]):
    """Anything JSON, as canonical text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: object) -> str:
        return json_text(value)

    def process_result_value(self, value: str | None, dialect: object) -> Any:
        return None if value is None else msgspec.json.decode(value)


class Scopes(TypeDecorator[tuple[Scope, ...]]):
    """A tuple of scopes, as JSON pairs."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[Scope, ...] | None, dialect: object) -> str:
        return json_text([(s.kind, s.value) for s in value or ()])

    def process_result_value(self, value: str | None, dialect: object) -> tuple[Scope, ...]:
        pairs = msgspec.json.decode(value or "[]")
        return tuple(Scope(ScopeKind(kind), name) for kind, name in pairs)


class Instant(TypeDecorator[datetime]):
    """An aware time, in UTC with microseconds. A naive one is a bug and is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: object) -> datetime | None:
        if value is not None and value.tzinfo is None:
            msg = f"{value} has no time zone"
            raise ValueError(msg)
        return value

    def process_result_value(self, value: datetime | None, dialect: object) -> datetime | None:
        return None if value is None else value.astimezone(UTC)
