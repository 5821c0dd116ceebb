"""`judge` and `plan`: look, change nothing. Neither needs a ledger; one that is configured is
heeded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from breakfix.adapters.prometheus_evidence import EvidenceSeries, node_evidence
from breakfix.cli.output import Format, Output, print_json, print_table, say, sparkline
from breakfix.decide.report import judgement_json
from breakfix.errors import SettingsError
from breakfix.evidence import answer_to
from breakfix.flow.assessment import Assessment, assess
from breakfix.flow.limits_report import emergency_json
from breakfix.flow.services import Services
from breakfix.model import Impact, Labelling, Tier
from breakfix.settings import load_settings
from breakfix.wiring import build_services


def judge(
    at: Annotated[
        str,
        typer.Option(help="Judge the past: RFC 3339, e.g. 2026-01-31T12:00:00Z, or Unix seconds."),
    ] = "",
    node: Annotated[str, typer.Option(help="Only this node, with its evidence.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Say what state each GPU node is in, why, and what should be done. Changes nothing."""
    settings = load_settings()
    services = build_services(settings, needs_ledger=False)
    assessment = assess(services, at=parse_time(at) if at else None)
    report = judgement_json(
        assessment.observation, assessment.judgement, services.policy, node=node or None
    )
    answers = answers_to(assessment, services)
    for told in report["nodes"]:
        if told["node"] in answers:
            told["answered"] = msgspec.to_builtins(answers[told["node"]])
    if node and not report["nodes"]:
        raise SettingsError(f"no GPU node named {node!r}")
    if output is Format.JSON:
        print_json(report)
        return
    _print_judgement(report, is_detailed=bool(node))
    if node:
        print_series(node_evidence(settings.prometheus_url, node, at=assessment.judgement.at))


def answers_to(assessment: Assessment, services: Services) -> dict[str, Labelling]:
    """Node -> what a person said of just this evidence. It explains; it changes no verdict."""
    if services.ledger is None:
        return {}
    at = assessment.judgement.at
    of_node: dict[str, list[Labelling]] = defaultdict(list)
    for given in services.ledger.labellings(standing_at=at):
        of_node[given.node].append(given)
    verdicts = (v for v in assessment.judgement.verdicts if v.node in of_node)
    found = ((v.node, answer_to(v, of_node[v.node], at)) for v in verdicts)
    return {node: answer for node, answer in found if answer is not None}


def _print_judgement(report: dict[str, Any], *, is_detailed: bool) -> None:
    nodes = report["nodes"]
    print_table(
        f"{len(nodes)} GPU nodes at {report['at']}, policy {report['policy']['version']}"
        f" ({report['policy']['hash'][:12]})",
        ("node", "state", "class", "conf.", "do", "unknown", "why"),
        (
            (
                n["node"],
                n["state"],
                n["failure_class"],
                n["confidence"],
                n["recommended_action"] + _answered(n),
                len(n["unknown"]) or "",
                n["reason"],
            )
            for n in sorted(nodes, key=lambda n: (-n["confidence"], n["node"]))
        ),
    )
    if is_detailed:
        for n in nodes:
            print_why(n["why"])
            _print_findings(n)
    for incident in report["incidents"]:
        say(f"incident {incident['scope']}: {incident['reason']}")
    for warning in report["warnings"]:
        say(f"warning: {warning}")


def _answered(node: dict[str, Any]) -> str:
    answer = node.get("answered")
    return f" (answered: {answer['label']})" if answer else ""


def print_why(why: dict[str, Any]) -> None:
    """One verdict's explanation: a sentence, how the confidence came about, what it lacks."""
    say(why["sentence"])
    if why["rows"]:
        print_table(
            "why: each source counts once, and adds to those above it",
            ("source", "weight", "confidence", "signals", "GPU", "what", "compared with"),
            (
                (
                    r["group"],
                    r["weight"],
                    r["confidence"],
                    ", ".join(r["signals"]),
                    ", ".join(r["gpus"]),
                    r["text"],
                    r["peers"],
                )
                for r in why["rows"]
            ),
        )
    for missing in why["missing"]:
        say(f"missing: {missing}")
    if why["uncounted"]:
        print_table(
            "seen, but adding nothing",
            ("signal", "GPU", "what", "why not"),
            ((u["signal"], u["gpu"], u["text"], u["why"]) for u in why["uncounted"]),
        )


def _print_findings(node: dict[str, Any]) -> None:
    print_table(
        f"findings on {node['node']}",
        ("signal", "gpu", "value", "threshold", "mode", "weight", "age s", "what", "source"),
        (
            (
                f["signal"],
                f["gpu"],
                f["value"],
                f["threshold"],
                f["mode"],
                f["weight"],
                f["age_s"],
                f["text"],
                f["source"],
            )
            for f in node["findings"]
        ),
    )
    if node["unknown"]:
        say("unknown: " + ", ".join(node["unknown"]))


def print_series(series: Sequence[EvidenceSeries]) -> None:
    """The last half hour of a node's GPUs, drawn small: a person sees a step or a gap at once.

    A GPU has another series for each pod that held it; they are one line here.
    """
    lines: dict[tuple[str, str], list[tuple[datetime, float]]] = defaultdict(list)
    for s in series:
        name = s.metric.removeprefix("DCGM_FI_DEV_").lower()
        lines[s.labels.get("gpu", s.gpu), name] += s.points
    print_table(
        "the last half hour",
        ("gpu", "metric", "first", "last", "minute by minute"),
        (
            (gpu, name, values[0], values[-1], sparkline(values))
            for (gpu, name), points in sorted(lines.items())
            if (values := [value for _, value in sorted(points)])
        ),
    )


def plan(output: Output = Format.TABLE) -> None:
    """Say which nodes would be taken out now, and why the others not. Changes nothing."""
    services = build_services(load_settings(), needs_ledger=False)
    assessment = assess(services)
    if output is Format.JSON:
        print_json(plan_json(assessment, services))
        return
    _print_plan(assessment)


def plan_json(assessment: Assessment, services: Services) -> dict[str, Any]:
    """{"at","hash","policy","intents":[...],"refusals":[...],"incidents":[...]}."""
    made: dict[str, Any] = msgspec.to_builtins(assessment.plan)
    for intent, row in zip(assessment.plan.intents, made["intents"], strict=True):
        row["hash"] = intent.hash
    made["hash"] = assessment.plan.hash
    made["policy"] = {"version": services.policy.version, "hash": services.policy.hash}
    made["emergency"] = emergency_json(assessment.brakes.emergency, assessment.observation.at)
    return made


def _would_stop(impact: Impact | None) -> str:
    """The cost of what is only recommended."""
    return f"; it would stop {impact.gpus_stopped} GPUs" if impact is not None else ""


def _asks(tier: Tier) -> str:
    """How many people must say yes, in a word."""
    return {Tier.AUTOMATIC: "nobody", Tier.ONE: "one person", Tier.TWO: "two people"}[tier]


def _print_plan(assessment: Assessment) -> None:
    made = assessment.plan
    emergency = emergency_json(assessment.brakes.emergency, assessment.observation.at)
    if emergency:
        say(f"EMERGENCY {emergency['state']}: {emergency['text']}")
    print_table(
        f"would be taken out (plan {made.hash[:12]})",
        ("node", "class", "conf.", "action", "asks", "pods", "GPUs stop", "GPUs free", "why"),
        (
            (
                i.node,
                i.failure_class,
                i.confidence,
                i.action,
                _asks(i.tier),
                i.impact.pods_evicted,
                i.impact.gpus_stopped,
                i.impact.gpus_free_after,
                i.reason,
            )
            for i in made.intents
        ),
    )
    for i in made.intents:
        for gang in i.impact.gangs:
            say(f"{i.node}: stops as a whole: {gang}")
        for ladder in i.impact.ladders:
            say(f"{i.node}: {ladder}")
    print_table(
        "not done",
        ("node", "class", "guardrail", "why"),
        (
            (r.node, r.failure_class, r.reason, r.text + _would_stop(r.impact))
            for r in made.refusals
        ),
    )
    for incident in made.incidents:
        say(f"incident {incident.scope}: {incident.reason}")


def parse_time(text: str, *, option: str = "--at") -> datetime:
    """An aware UTC time from RFC 3339 or Unix seconds. Raises SettingsError."""
    try:
        if text.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(text), UTC)
        value = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise SettingsError(
            f"{option} {text!r}: write e.g. 2026-01-31T12:00:00Z or Unix seconds"
        ) from None
    if value.tzinfo is None:
        raise SettingsError(f"{option} {text!r} has no time zone; add Z for UTC")
    return value.astimezone(UTC)
