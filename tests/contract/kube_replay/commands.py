"""Recorded command lines: kubectl itself against a simulated API in the state of that moment."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from simfleet.kube import SimKube
from simfleet.kube.live import LiveSettings
from simfleet.kube.store import Snapshot
from tests.contract.kube_replay.comparing import AGE, Mismatch

KUBECTL = shutil.which("kubectl")
TIMEOUT_S = 40.0
# What a drain needs of the cluster: pods that end, budgets that are counted.
AROUND = LiveSettings(frozenset({"kubelet", "budgets"}))
ONE_OF_TWO = re.compile(r"guarded-6f8c9f6c6c-\w{5}")
REST_CUT = re.compile(r"\(\d+ more lines cut\)")


def play(before: Snapshot, line: str, recorded: dict) -> bool:
    """Run a recorded kubectl command. Raises Mismatch."""
    if KUBECTL is None:
        raise Skipped
    with (
        SimKube(snapshot=before, live=True, settings=AROUND, tls=True) as kube,
        tempfile.TemporaryDirectory() as folder,
    ):
        config = kube.kubeconfig(Path(folder) / "config")
        words = [KUBECTL, "--kubeconfig", str(config), "--cache-dir", folder, *line.split()[1:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != recorded["status"]:
        raise Mismatch(f"exit code {done.returncode}: {done.stdout} {done.stderr}")
    for stream, text in (("stdout", done.stdout), ("stderr", done.stderr)):
        _compare_lines(stream, recorded["body"][stream], text.splitlines())
    return True


class Skipped(Exception):
    """There is no kubectl here."""


def _compare_lines(stream: str, recorded: list[str], ours: list[str]) -> None:
    if recorded and REST_CUT.fullmatch(recorded[-1]):
        recorded = recorded[:-1]
        ours = ours[: len(recorded)]
    # Pods are evicted in parallel: the order of the lines is chance, as that of the warnings.
    one, other = (sorted(_plain(line) for line in lines) for lines in (recorded, ours))
    if one != other:
        raise Mismatch(f"{stream}: recorded {recorded}, ours {ours}")


def _plain(line: str) -> str:
    """A line as its words in alphabetical order.

    Lists within a line come in the order of a Go map, and which of two pods under one budget is
    evicted first is chance.
    """
    line = ONE_OF_TWO.sub("guarded-(one of two)", line)
    # kubectl before 1.34 says it twice.
    line = line.replace("cannot delete cannot delete", "cannot delete")
    words = ["(age)" if AGE.fullmatch(word) else word for word in re.split(r"[][,;\s]+", line)]
    return " ".join(sorted(words))
