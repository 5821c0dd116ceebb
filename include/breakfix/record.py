"""The stage `record`, above the ledger's port: is the record whole, is it the one we knew, export.

Everything else that records is a method of `ports.Ledger`, in the transaction of what it tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from breakfix.model import canonical
from breakfix.ports import Ledger

_PAGE = 1000  # entries asked of the ledger at a time


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What verifying the audit found; `fault` is empty when the chain is whole."""

    entries: int
    fault: str

    @property
    def is_whole(self) -> bool:
        return not self.fault


def verify(ledger: Ledger, known_head: tuple[int, str] | None = None) -> AuditCheck:
    """Check every entry, and that the chain still contains `known_head` (seq, hash) seen before.

    The chain alone cannot show that its end and its head were cut together, or that an older
    backup was restored: a head remembered elsewhere can.
    """
    entries, fault = ledger.verify_audit()
    if not fault and known_head is not None:
        fault = fault_since(ledger, known_head)
    return AuditCheck(entries, fault)


def fault_since(ledger: Ledger, known_head: tuple[int, str]) -> str:
    """Empty when the audit continues `known_head`, else a sentence; reads one entry.

    Of the hash its beginning will do: a metric carries no more.
    """
    seq, known_hash = known_head
    if seq == 0:
        return ""
    last, _ = ledger.head()
    if last < seq:
        return f"the ledger ends at entry {last}, but entry {seq} was seen: it is an older copy"
    entry = next(iter(ledger.audit_entries(after=seq - 1, limit=1)), None)
    if entry is None or entry.seq != seq:
        return f"entry {seq} was seen before and is missing"
    if not known_hash or not entry.hash.startswith(known_hash):
        return f"entry {seq} is not the one that was seen: the ledger has another history"
    return ""


def audit_lines(ledger: Ledger, *, after: int = 0) -> Iterator[str]:
    """The audit as JSON lines, oldest first, a page in memory at a time.

    Each line is an entry with sorted keys; without its `hash` it is what the hash was made of.
    """
    while page := ledger.audit_entries(after=after, limit=_PAGE):
        for entry in page:
            yield canonical(entry).decode()
        after = page[-1].seq
