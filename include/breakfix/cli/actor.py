"""Who is at the keyboard: the name that the audit log keeps."""

from __future__ import annotations

import getpass
import os


def actor() -> str:
    """`cli:<login>`; behind sudo the person who called it, not root."""
    return "cli:" + (os.environ.get("SUDO_USER") or _login())


def _login() -> str:
    """A container may run as a user that no passwd file names."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
