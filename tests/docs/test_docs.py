"""What the documentation says is there, is there; and what is there, the documentation says."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
import typer
import yaml

from breakfix.cli.app import app
from breakfix.cli.output import ExitCode
from breakfix.policy import Learning, Lemon, Limits, Policy, Timing, parse_policy
from breakfix.policy_validation import ValidationRules
from breakfix.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    broken = [x for x in links if "://" not in x and not (page.parent / x).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_page_says_a_sentence_twice(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    prose = "\n".join(x for x in text.splitlines() if not x.startswith(("|", "#")))
    said = [" ".join(x.split()) for x in re.split(r"(?<=[.:;])\s+", prose)]
    assert [x for x in said if len(x) >= 40 and said.count(x) > 1] == []


def test_every_setting_is_documented():
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    missing = [n for n in Settings.model_fields if f"`BREAKFIX_{n.upper()}`" not in text]
    assert not missing


def test_no_setting_is_documented_that_does_not_exist():
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    of_dags = {"SWEEP_INTERVAL", "RECONCILE_INTERVAL", "CANARY_INTERVAL"}
    named = set(re.findall(r"^\| `BREAKFIX_([A-Z_]+)`", text, re.MULTILINE))
    assert named - of_dags == {n.upper() for n in Settings.model_fields}


def _commands(group, prefix="breakfix"):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


def test_every_command_is_documented():
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    commands = list(_commands(typer.main.get_command(app)))
    assert len(commands) > 10
    missing = [c for c in commands if c not in text and c.removeprefix("breakfix ") not in text]
    assert not missing


def test_every_exit_code_is_documented():
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert all(f"| {int(code)} |" in text for code in ExitCode)


@pytest.mark.parametrize(
    "model", [Policy, Limits, Timing, ValidationRules, Learning, Lemon], ids=lambda m: m.__name__
)
def test_every_policy_key_is_documented(model):
    text = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    keys = [f.alias or name for name, f in model.model_fields.items()]
    assert [k for k in keys if f"`{k}`" not in text] == []


def test_the_overlay_shown_to_newcomers_is_valid():
    text = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    overlay = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    default = resources.files("breakfix").joinpath("policy.yaml").read_text(encoding="utf-8")
    policy = parse_policy(default, overlay)
    assert policy.version == yaml.safe_load(overlay)["version"]
    assert policy.approvals.approvers


def test_the_readme_names_targets_that_make_knows():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"demo", "test"} <= named
    assert [t for t in named if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


def test_each_decision_record_says_when_it_is_violated():
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert records
    silent = [r.name for r in records if "**Violated when**" not in r.read_text(encoding="utf-8")]
    assert not silent
