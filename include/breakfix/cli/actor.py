"""Who is at the keyboard: the name that the audit log keeps."""

from __future__ import annotations

import getpass
import os


def actor() -> str:
    """`cli:<login>`; behind sudo the person who called it, not root."""
    return "cli:" + (os.environ.get("SUDO_USER") or getpass.getuser())
