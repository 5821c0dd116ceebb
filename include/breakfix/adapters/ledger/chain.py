"""The audit's hash chain, as pure functions: how an entry is sealed and how a chain is checked.

hash = SHA-256 over the canonical JSON of {seq, at, actor, event, subject, detail, previous_hash}.
`detail` is hashed as the very text that is stored, so that no round trip through a number or a time
can break the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from breakfix.model import AuditEntry, canonical, digest

#: What the first entry of a cluster follows.
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Sealed:
    """An audit entry as it is stored; `detail` is canonical JSON text."""

    seq: int
    at: datetime
    actor: str
    event: str
    subject: str
    detail: str
    previous_hash: str
    hash: str = ""

    def seal(self) -> str:
        """The hash that this entry must have (hex)."""
        return digest(
            {
                "seq": self.seq,
                "at": self.at.astimezone(UTC),
                "actor": self.actor,
                "event": self.event,
                "subject": self.subject,
                "detail": msgspec.Raw(self.detail.encode()),
                "previous_hash": self.previous_hash,
            }
        )

    def opened(self) -> AuditEntry:
        """The entry with its detail parsed."""
        return AuditEntry(
            seq=self.seq,
            at=self.at.astimezone(UTC),
            actor=self.actor,
            event=self.event,
            subject=self.subject,
            detail=msgspec.json.decode(self.detail),
            previous_hash=self.previous_hash,
            hash=self.hash,
        )


def seal(
    head: tuple[int, str],
    *,
    at: datetime,
    actor: str,
    event: str,
    subject: str,
    detail: Mapping[str, Any],
) -> Sealed:
    """The entry that follows `head` (seq, hash)."""
    bare = Sealed(
        seq=head[0] + 1,
        at=at.astimezone(UTC),
        actor=storable(actor),
        event=storable(event),
        subject=storable(subject),
        detail=json_text(detail),
        previous_hash=head[1],
    )
    return replace(bare, hash=bare.seal())


def storable(text: str) -> str:
    """Text from outside as Postgres can hold it: NUL becomes U+FFFD, a lone surrogate `?`."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def json_text(value: object) -> str:
    """Canonical JSON text of anything; names from outside cannot make it fail."""
    try:
        return canonical(value).decode()
    except UnicodeEncodeError:
        return canonical(_cleaned(msgspec.to_builtins(value))).decode()


def plain(value: object) -> Any:
    """Anything as it comes back from the ledger: lists for tuples, text for words and times."""
    return msgspec.json.decode(json_text(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(k)): _cleaned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(v) for v in value]
    return value


def first_fault(entries: Iterable[Sealed], head: tuple[int, str]) -> tuple[int, str]:
    """(entries that are good, "" or what is wrong with the first bad one). Reads each entry once.

    `entries` come by rising seq; `head` is the (seq, hash) that the ledger believes to be last.
    """
    good, last = 0, GENESIS
    for entry in entries:
        fault = _fault(entry, good + 1, last)
        if fault:
            return good, fault
        good, last = good + 1, entry.hash
    if good < head[0]:
        return good, f"cut off: the chain's head is entry {head[0]}, the last one there is {good}"
    if head not in {(good, last), (0, GENESIS)}:
        return good, f"entry {good} is not the chain's head (entry {head[0]})"
    if good and head == (0, GENESIS):
        return good, f"the chain's head is lost: it should be entry {good}"
    return good, ""


def _fault(entry: Sealed, expected_seq: int, previous_hash: str) -> str:
    if entry.seq > expected_seq:
        return f"entry {expected_seq} is missing: entry {entry.seq} comes next"
    if entry.seq < expected_seq:
        return f"entry {entry.seq} is there twice or out of order"
    if entry.previous_hash != previous_hash:
        return f"entry {entry.seq} does not follow the one before it: one of them was replaced"
    if entry.seal() != entry.hash:
        return f"entry {entry.seq} ({entry.event} of {entry.subject}) was changed"
    return ""
