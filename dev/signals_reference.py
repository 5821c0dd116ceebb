"""Writes docs/signals.md from the default policy: `python -m dev.signals_reference [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from breakfix.policy import Policy, SignalRule, XidRule, parse_policy
from breakfix.wiring import default_policy_text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "signals.md"
INPUTS = {
    "gpu": "GPU telemetry",
    "node": "Node telemetry",
    "workload": "Workload telemetry",
    "scheduler": "Scheduler state",
    "change": "Change events",
}

HEAD = """# Signals

Written by `python -m dev.signals_reference` from the default policy; change it there. What a
column means is in [policy.md](policy.md). `breakfix policy show NAME` prints a rule with its
query, and `tests/policy` has a true and a false case of each.

- **Acts**: `alone` may carry an action by itself, `corroborate` needs a finding of another group,
  `never` is context.
- **Beyond**: the value that speaks, over the window; `hold` is how long it must have been so.
  Values are what the query makes of the metric: a rate, a share, a ratio to the peers' median.
- A signal of a source that no node has is unknown, not healthy; missing, stale, blank
  (DCGM's, and all from 2^62) and not-a-number samples count as missing, counters that fall count
  as reset.
- Everything of one group is one witness: the groups add up, the findings within one do not.
"""


def page(policy: Policy) -> str:
    """The whole page."""
    parts = [HEAD]
    for key, title in INPUTS.items():
        rules = [r for r in policy.signals if r.input == key]
        if rules:
            parts += [f"## {title}", "", *_table(rules), ""]
    parts += ["## Facts", "", *_facts(policy), "", "## XIDs", "", *_xids(policy), ""]
    return "\n".join(parts)


def _table(rules: Iterable[SignalRule]) -> list[str]:
    rows = [
        "| signal | class | acts | weight | group | beyond | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rules:
        cells = [f"`{r.name}`", r.failure_class, r.mode, f"{r.weight:g}", r.group, _beyond(r)]
        rows.append("| " + " | ".join([*cells, _cell(r.source)]) + " |")
    return rows


def _beyond(rule: SignalRule) -> str:
    words = [f"{rule.op} {rule.threshold:g}"]
    if rule.expects:
        words = ["fewer than expected"]
    if rule.peers:
        words.append("of peers")
    words += [f"over {_time(rule.window_s)}"] * bool(rule.window_s)
    words += [f"hold {_time(rule.hold_s)}"] * bool(rule.hold_s)
    if rule.clear_threshold is not None:
        words.append(f"until {rule.clear_threshold:g}")
    return _cell(", ".join(words))


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _facts(policy: Policy) -> list[str]:
    made = {n: r for n, r in policy.facts.items() if n.startswith("changed_")}
    names = ", ".join(f"`{n}`" for n in policy.facts if n not in made)
    changes = ", ".join(f"`{n}`" for n in made)
    return [
        f"Of each node: {names}. What was changed on it lately, and into what: {changes}.",
        "Nodes that share a fact or a change and fail together are one incident.",
    ]


def _xids(policy: Policy) -> list[str]:
    rows = [
        "| XID | what | class | acts | weight | follows | source |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [_xid(code, rule) for code, rule in sorted(policy.xids.items())]
    apps = ", ".join(map(str, policy.app_xids))
    return [
        *rows,
        "",
        f"Of applications, never a reason: {apps}. Any other code is shown to a person.",
    ]


def _xid(code: int, rule: XidRule) -> str:
    follows = ", ".join(map(str, rule.follows))
    cells = [str(code), rule.text, rule.failure_class, rule.mode, f"{rule.weight:g}", follows]
    return "| " + " | ".join([*map(_cell, cells), _cell(rule.source)]) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is stale."""
    text = page(parse_policy(default_policy_text()))
    if "--check" in arguments:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print("docs/signals.md is stale. To do: python -m dev.signals_reference", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
