"""`replay`: how often are the verdicts right? Labelled traces through a real Prometheus."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from breakfix.cli.output import ExitCode, Format, Output, complain, print_json, print_table, say
from breakfix.errors import SettingsError
from breakfix.policy import Policy, parse_policy
from breakfix.replay.baselines import FATAL_EVENTS, THRESHOLDS
from breakfix.replay.direct import compare, replay_all_directly
from breakfix.replay.floors import Floor, check_floors
from breakfix.replay.load import Source, load_paths
from breakfix.replay.outcome import OURS, Replayed
from breakfix.replay.publish import Publication, numbers, publication, score_rows
from breakfix.replay.run import Progress as Tell
from breakfix.replay.run import replay_all
from breakfix.replay.score import Score, score
from breakfix.settings import load_settings
from breakfix.wiring import default_policy_text, load_policy

AUTOMATIONS = (OURS, THRESHOLDS, FATAL_EVENTS)


def replay(
    paths: Annotated[list[Path], typer.Argument(help="Trace files, or folders of *.trace.yaml.")],
    *,
    output: Output = Format.TABLE,
    policy: Annotated[
        Path | None, typer.Option(help="A policy overlay; default: BREAKFIX_POLICY.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes, a Prometheus each.")] = 1,
    direct: Annotated[
        bool, typer.Option("--direct", help="Without a Prometheus: for many days of noise.")
    ] = False,
    compare_direct: Annotated[
        bool, typer.Option("--compare-direct", help="Both ways; exit 5 where verdicts differ.")
    ] = False,
    require: Annotated[
        str, typer.Option(help="Floors, e.g. precision=0.99,recall=0.95; exit 5 below one.")
    ] = "",
    write: Annotated[
        Path | None, typer.Option(help="Publish the numbers there, as Markdown.")
    ] = None,
) -> None:
    """Replay labelled traces: precision, recall, time to detect, calibration. Changes nothing."""
    signal.signal(signal.SIGTERM, _leave)  # so that no Prometheus of ours stays behind
    sources = load_paths(paths)
    rules = _policy(policy)
    with _progress(len(sources)) as tell:
        if direct:
            replayed = replay_all_directly(sources, rules, jobs=jobs, progress=tell)
        else:
            replayed = replay_all(sources, rules, jobs=jobs, progress=tell)
    differences = _differences(sources, rules, replayed, jobs) if compare_direct else []
    scores = [score(replayed, who) for who in AUTOMATIONS]
    floors = check_floors(require, scores[0])
    if write is not None:
        made = publication(Publication(_command(), rules, replayed, scores, floors))
        write.write_text(made, encoding="utf-8")
    if output is Format.JSON:
        print_json(numbers(rules, replayed, scores, floors))
    else:
        _print(replayed, scores, floors)
    if differences:
        sys.exit(complain(f"{len(differences)} verdicts differ", ExitCode.UNSOUND))
    missed = [f for f in floors if not f.is_kept]
    if missed:
        sys.exit(complain("below the floor: " + "; ".join(map(str, missed)), ExitCode.UNSOUND))


def _differences(
    sources: Sequence[Source], policy: Policy, replayed: Sequence[Replayed], jobs: int
) -> Sequence[str]:
    """Where the direct path says something else than the real Prometheus; told to people."""
    ours = replay_all_directly(sources, policy, jobs=jobs, is_whole=True)
    lines = [
        f"{a.trace.name}: {line}"
        for a, b in zip(ours, replayed, strict=True)
        for line in compare(a, b)
    ]
    verdicts = sum(len(r.trace.sweeps) * len(r.trace.node_names) for r in replayed)
    Console(stderr=True).print(
        Text(f"direct and Prometheus: {len(lines)} of {verdicts} verdicts differ")
    )
    for line in lines[:20]:
        Console(stderr=True).print(Text(line))
    return lines


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _policy(overlay: Path | None) -> Policy:
    if overlay is None:
        return load_policy(load_settings())
    try:
        text = overlay.read_text(encoding="utf-8")
    except OSError as e:
        raise SettingsError(f"cannot read {overlay}: {e.strerror}") from e
    return parse_policy(default_policy_text(), text)


def _command() -> str:
    return shlex.join(["breakfix", *sys.argv[1:]])


@contextmanager
def _progress(total: int) -> Iterator[Tell]:
    """A bar on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("traces", total=total)

        def tell(done: Replayed) -> None:
            bar.update(task, advance=1, description=done.trace.name[:40])

        yield tell


def _print(replayed: Sequence[Replayed], scores: Sequence[Score], floors: Sequence[Floor]) -> None:
    days = sum(r.trace.node_days for r in replayed)
    sweeps = sum(len(r.trace.sweeps) for r in replayed)
    print_table(
        f"{len(replayed)} traces, {sweeps} sweeps, {days:.1f} node-days",
        ("", *(s.who for s in scores)),
        score_rows(scores),
    )
    ours = scores[0]
    print_table(
        "confidence and truth",
        ("said", "claims", "mean", "true"),
        (
            (f"{b.low:.1f} - {b.high:.1f}", b.claims, b.mean_confidence, b.share_right)
            for b in ours.reliability.bins
        ),
    )
    print_table(
        "classes of right recommendations",
        ("true", "said", "episodes"),
        ((true, said, count) for (true, said), count in ours.confusion.items()),
    )
    print_table(
        "where we are wrong",
        ("trace", "what", "node", "at s", "said", "true", "why"),
        ((w.trace, w.what, w.node, w.at, w.said, w.truth, w.reason) for w in ours.wrongs),
    )
    for warning in dict.fromkeys(f"{r.trace.name}: {w}" for r in replayed for w in r.warnings):
        say(f"warning: {warning}")
    for floor in floors:
        say(f"{'kept' if floor.is_kept else 'MISSED'}: {floor}")
