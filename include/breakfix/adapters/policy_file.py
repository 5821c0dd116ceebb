"""The policy in force, read anew when its overlay changes, without a restart.

An edit is taken whole or not at all: a text that is not well formed, that has become empty, or that
is still being written leaves the last good policy in force, and `note` says so until it is mended.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from breakfix.errors import SettingsError
from breakfix.policy import Policy, parse_policy

log = logging.getLogger(__name__)

#: An overlay younger than this may still be being written: editors do not write at once.
SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """The policy in force; `note` says why it is not what its file says now ("" when it is)."""

    policy: Policy
    note: str = ""


class PolicyFile:
    """The default policy with the overlay of a file. Safe to ask from several threads.

    `kept`: where the last good overlay is kept for processes that start while the overlay is
    broken; without it such a process ends with SettingsError.
    """

    def __init__(
        self,
        default_text: str,
        overlay: Path | None = None,
        *,
        kept: Path | None = None,
        settle_s: float = SETTLE_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._default = default_text
        self._overlay = overlay
        self._kept = kept
        self._settle_s = settle_s
        self._now = now
        self._good: tuple[str, Policy] | None = None
        self._refused = ("", "")  # the last text that was not well formed, and why
        self._said = ""
        self._lock = threading.Lock()

    def current(self) -> Loaded:
        """The policy to judge by now. Raises SettingsError only where no good one was ever seen."""
        with self._lock:
            loaded = self._first() if self._good is None else self._next(*self._good)
            if loaded.note and loaded.note != self._said:
                log.warning("%s", loaded.note)
            self._said = loaded.note
            return loaded

    def _first(self) -> Loaded:
        try:
            good = self._read_good()
        except SettingsError as e:
            kept = self._read_kept()
            if kept is None:
                raise
            self._good = kept
            return Loaded(kept[1], self._note(str(e)))
        self._good = good
        self._keep(good[0])
        return Loaded(good[1])

    def _read_good(self) -> tuple[str, Policy]:
        text = self._read()
        return text, parse_policy(self._default, text)

    def _next(self, good_text: str, good: Policy) -> Loaded:
        try:
            text = self._read()
            if text == good_text:
                return Loaded(good)
            self._check_is_whole(text, good_text)
            policy = self._parse(text)
        except SettingsError as e:
            return Loaded(good, self._note(str(e)))
        self._good = (text, policy)
        log.info("policy %s is in force now, hash %s", policy.version, policy.hash)
        self._keep(text)
        return Loaded(policy)

    def _parse(self, text: str) -> Policy:
        """As parse_policy; a text that was refused is not read a second time."""
        if text == self._refused[0] and self._refused[1]:
            raise SettingsError(self._refused[1])
        try:
            return parse_policy(self._default, text)
        except SettingsError as e:
            self._refused = (text, str(e))
            raise

    def _check_is_whole(self, text: str, good_text: str) -> None:
        """Raise SettingsError for a text that may be half of one."""
        if good_text.strip() and not text.strip():
            raise SettingsError("it is empty; an overlay that changes nothing is written {}")
        if self._overlay is None:
            return
        try:
            age_s = self._now() - self._overlay.stat().st_mtime
        except OSError as e:
            raise SettingsError(f"it cannot be read: {e.strerror}") from e
        if 0 <= age_s < self._settle_s:
            raise SettingsError("it was written just now: it is read again at the next look")

    def _note(self, why: str) -> str:
        kept = f"the policy before it ({self._good[1].hash[:12]})" if self._good else "no policy"
        return f"the policy overlay {self._overlay} is not used, {kept} stays in force: {why}"

    def _read(self) -> str:
        if self._overlay is None:
            return ""
        try:
            return self._overlay.read_text(encoding="utf-8")
        except OSError as e:
            raise SettingsError(
                f"BREAKFIX_POLICY: cannot read {self._overlay}: {e.strerror}"
            ) from e
        except UnicodeDecodeError as e:
            raise SettingsError(f"BREAKFIX_POLICY: {self._overlay} is not UTF-8") from e

    def _read_kept(self) -> tuple[str, Policy] | None:
        if self._kept is None:
            return None
        try:
            text = self._kept.read_text(encoding="utf-8")
            return text, parse_policy(self._default, text)
        except (OSError, UnicodeDecodeError, SettingsError) as e:
            log.warning("the kept policy %s cannot be used: %s", self._kept, e)
            return None

    def _keep(self, text: str) -> None:
        """Written beside and renamed: a reader sees the old text or the new one."""
        if self._kept is None or self._overlay is None:
            return
        try:
            handle, name = tempfile.mkstemp(dir=self._kept.parent, prefix=self._kept.name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(self._kept)
        except OSError as e:
            log.warning("the policy cannot be kept in %s: %s", self._kept, e)
