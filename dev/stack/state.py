"""What `make up` leaves for `make down` in another shell: one locked file a stack.

Whether a stack is up is told by the lock, which the kernel releases when its holder ends, however
that happens; the process id in the file only says whom to ask to stop.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Status = Literal["starting", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class State:
    """A stack's own words about itself."""

    pid: int
    mark: str
    status: Status
    error: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


def write(folder: Path, state: State) -> None:
    """Replace the state in one move; only its owner may read it, for it holds passwords."""
    path = folder / "state.json"
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(asdict(state), indent=2))
    fresh.rename(path)


def read(folder: Path) -> State | None:
    """Return the state last written; None when there is none."""
    try:
        return State(**json.loads((folder / "state.json").read_text()))
    except FileNotFoundError:
        return None


def clear(folder: Path) -> None:
    """Forget the state."""
    (folder / "state.json").unlink(missing_ok=True)


def is_up(folder: Path) -> bool:
    """Tell whether a process holds this stack."""
    if not folder.exists():
        return False
    with hold(folder) as is_ours:
        return not is_ours


@contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Take the lock for as long as the block runs; yields False when another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
