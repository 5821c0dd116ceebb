"""Traces as files: the committed corpus, and bigger sets on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.traces.scenarios import SCENARIOS
from tests.traces.story import Story

FOLDER = Path(__file__).parent / "corpus"
SEED = 1  # of the committed corpus
SUFFIX = ".trace.yaml"
#: Too long for the corpus; made on demand.
_LARGE = frozenset({"four_hours_of_noise", "a_fault_amid_noise"})

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def as_yaml(document: dict[str, Any]) -> str:
    """One document: a line for each entry of a list, so that people can read and compare it."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{key}:")
            lines += [f"- {_flow(entry)}" for entry in value]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = yaml.dump(
        value, Dumper=_DUMPER, default_flow_style=True, sort_keys=False, width=1_000_000,
        allow_unicode=True,
    )  # fmt: skip
    return str(text).removesuffix("...\n").strip()


def stories(seeds: Iterable[int], names: Iterable[str] = (), every: int = 1) -> Iterator[Story]:
    """Each scenario with each seed; with `every` n, each scenario with each nth seed by turns."""
    chosen = sorted(names) or sorted(SCENARIOS)
    for seed in seeds:
        for i, name in enumerate(chosen):
            if (i + seed) % every == 0:
                yield SCENARIOS[name].story(seed)


def corpus_files() -> dict[str, str]:
    """Name -> content of every file of the committed corpus, one for each scenario."""
    return {
        f"{name}{SUFFIX}": as_yaml(scenario.story(SEED).document())
        for name, scenario in sorted(SCENARIOS.items())
        if name not in _LARGE
    }


def write(folder: Path, made: Iterable[Story]) -> int:
    """A file for each story; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for story in made:
        document = story.document()
        (folder / f"{document['name']}{SUFFIX}").write_text(as_yaml(document), encoding="utf-8")
        count += 1
    return count
