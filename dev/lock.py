"""Make `requirements.txt` from `pyproject.toml`, and tell when it is stale.

The first lines of the lock carry two digests: one of the parts of `pyproject.toml` that it was
resolved from, one of the lines below them. So the check needs no network, gives the same answer
everywhere, and also notices a lock that was edited by hand.

    python -m dev.lock            make it anew, keeping every version that still fits
    python -m dev.lock --upgrade  the same, moving what pyproject.toml leaves free
    python -m dev.lock --check    exit 1 with one line when it is stale
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT_MARK = "# pyproject.toml sha256: "
LOCK_MARK = "# lines below sha256: "
TITLE = "# All packages of all extras, pinned and hashed. Made by `make lock`; do not edit.\n"
HEAD_LINES = 3
RESOLVE_TIMEOUT_S = 300


class StaleLock(Exception):
    """The lock does not belong to the project file; the message says what to do."""


def project_digest(pyproject: str) -> str:
    """Digest of the parts of the project file that decide what is installed."""
    data = tomllib.loads(pyproject)
    project = data["project"]
    parts = {
        "requires-python": project["requires-python"],
        "dependencies": sorted(project["dependencies"]),
        "extras": {k: sorted(v) for k, v in project["optional-dependencies"].items()},
        "build": sorted(data["build-system"]["requires"]),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def render(pyproject: str, body: str) -> str:
    """Put the two digests above the resolved lines."""
    lock_digest = hashlib.sha256(body.encode()).hexdigest()
    return f"{TITLE}{PROJECT_MARK}{project_digest(pyproject)}\n{LOCK_MARK}{lock_digest}\n{body}"


def check(pyproject: str, lock: str) -> None:
    """Raise StaleLock unless the lock was made from this project file and left as it was made."""
    body = "".join(lock.splitlines(keepends=True)[HEAD_LINES:])
    if f"{PROJECT_MARK}{project_digest(pyproject)}\n" not in lock:
        message = "requirements.txt is stale: pyproject.toml has changed since. Run `make lock`."
        raise StaleLock(message)
    if render(pyproject, body) != lock:
        raise StaleLock("requirements.txt was edited by hand. Run `make lock`.")


def resolve(previous: Path, *, upgrade: bool) -> str:
    """Resolve all extras for every supported Python; raises CalledProcessError with uv's words."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise StaleLock("uv is not installed. Run `make setup`.")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "requirements.txt"
        if previous.exists():
            shutil.copy(previous, out)
        command = [uv, "pip", "compile", "pyproject.toml", "--all-extras", "--universal"]
        command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
        command += ["--only-binary", ":all:"]
        command += ["--python-version", "3.11", "--quiet", "--output-file", str(out)]
        command += ["--upgrade"] if upgrade else []
        subprocess.run(command, cwd=ROOT, check=True, timeout=RESOLVE_TIMEOUT_S)
        return out.read_text()


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the lock; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.lock", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--upgrade", action="store_true")
    chosen = parser.parse_args(argv)
    lock, pyproject = ROOT / "requirements.txt", (ROOT / "pyproject.toml").read_text()
    try:
        if chosen.check:
            check(pyproject, lock.read_text())
        else:
            lock.write_text(render(pyproject, resolve(lock, upgrade=chosen.upgrade)))
    except (StaleLock, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
