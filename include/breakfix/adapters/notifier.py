"""Telling people: one structured log line a message. A chat or pager integration is one more of
these.
"""

from __future__ import annotations

import logging

log = logging.getLogger("breakfix.notify")


class LogNotifier:
    """`ports.Notifier` that writes to the log, where every deployment already looks."""

    def tell(self, subject: str, text: str, *, case_id: str = "") -> None:
        log.warning("case=%s %s: %s", case_id or "-", subject, text)
