"""Write traces to a folder: `python -m tests.traces --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.traces.corpus import FOLDER, corpus_files, stories, write
from tests.traces.noise import stream
from tests.traces.scenarios import SCENARIOS


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.traces", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(1000, 1001), help="e.g. 1000-1040")
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--scenario", action="append", default=[], choices=sorted(SCENARIOS))
    parser.add_argument(
        "--every", type=int, default=1, help="each scenario with each nth seed only"
    )
    parser.add_argument("--noise", metavar="NODESxDAYS", help="base-rate noise instead, e.g. 100x2")
    parser.add_argument("--corpus", action="store_true", help="write the committed corpus again")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Write what was asked for."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.list:
        for name, one in sorted(SCENARIOS.items()):
            sys.stdout.write(f"{name:45} {one.kind:14} {one.about}\n")
        return 0
    if asked.corpus:
        for old in FOLDER.glob("*.yaml"):
            old.unlink()
        for name, text in corpus_files().items():
            (FOLDER / name).write_text(text, encoding="utf-8")
        return 0
    if asked.out is None:
        parser.error("--out is missing: name a folder")
    if asked.noise:
        nodes, _, days = asked.noise.partition("x")
        made = stream(asked.seeds[0], int(nodes), float(days), chunk_nodes=100)
        count = write(asked.out, made)
    else:
        count = write(asked.out, stories(asked.seeds, asked.scenario, asked.every))
    sys.stdout.write(f"{count} traces in {asked.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
