"""`policy`: what the rules are, what one does, what a change changes, whether they are well formed
and judge as they should.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from breakfix.cli import policy_tests
from breakfix.cli.output import ExitCode, Format, Output, print_json, print_table, say
from breakfix.cli.policy_pages import print_changes, print_explanation, print_policy
from breakfix.errors import SettingsError
from breakfix.policy import Policy
from breakfix.rulebook.checking import WrongPolicy, read_policy
from breakfix.rulebook.compare import compare
from breakfix.rulebook.explain import explain as explain_rule
from breakfix.rulebook.files import policy_of
from breakfix.rulebook.names import find_rule
from breakfix.rulebook.places import Document
from breakfix.rulebook.queries import not_understood
from breakfix.rulebook.schema import policy_schema
from breakfix.settings import load_settings
from breakfix.wiring import default_policy_text, load_policy, rungs_of

app = typer.Typer(help="The rules: signals, XIDs, classes, limits, timings.", no_args_is_help=True)


@app.command("show")
def show(output: Output = Format.TABLE) -> None:
    """Show the policy in force: the default with the overlay of BREAKFIX_POLICY."""
    policy = load_policy(load_settings())
    if output is Format.JSON:
        data = policy.model_dump(mode="json", by_alias=True)
        print_json({"hash": policy.hash, **data})
        return
    print_policy(policy)


@app.command("check")
def check(
    overlay: Annotated[
        Path | None, typer.Argument(help="An overlay; default: BREAKFIX_POLICY.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Check an overlay against the schema and the default policy.

    Exit 2 with file, line and column of every wrong value.
    """
    try:
        policy = _checked(overlay)
    except WrongPolicy as e:
        if output is Format.JSON:
            print_json({"is_valid": False, "faults": e.faults})
            raise typer.Exit(ExitCode.USAGE) from None
        raise
    if output is Format.JSON:
        known = {"is_valid": True, "version": policy.version, "hash": policy.hash}
        print_json({**known, "notes": _notes(policy)})
        return
    say(f"policy {policy.version} is valid: {len(policy.signals)} signals, hash {policy.hash}")
    for note in _notes(policy):
        say(f"note: {note}")


def _notes(policy: Policy) -> list[str]:
    return [*policy.approvals.shortcomings(), *not_understood(policy)]


def _checked(overlay: Path | None) -> Policy:
    path, settings = overlay, load_settings()
    if path is None and settings.policy:
        path = Path(settings.policy).expanduser()
    default = Document("the default policy", default_policy_text())
    text = Document(str(path), _text_of(path)) if path else None
    return read_policy(default, text, available=rungs_of(settings))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise SettingsError(f"cannot read {path}: {why}") from e


@app.command("explain")
def explain(
    rule: Annotated[
        str,
        typer.Argument(
            help="A signal, an XID (79 or xid:79), a failure class, or a number"
            " (limits.max_attempts)."
        ),
    ],
    output: Output = Format.TABLE,
) -> None:
    """Say in words what one rule of the policy in force does, with the query as it is sent."""
    policy = load_policy(load_settings())
    found = explain_rule(find_rule(rule, policy), policy, default_policy_text())
    if output is Format.JSON:
        print_json(found)
        return
    print_explanation(found)


@app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help="A file, `default`, or `current`.")],
    after: Annotated[str, typer.Argument(help="A file, `default`, or `current`.")],
    output: Output = Format.TABLE,
) -> None:
    """Say what changes from one policy to another, and what makes automation bolder.

    A file is an overlay, or what `policy show -o json` wrote. Exit 0: equal, 1: they differ.
    """
    old, new = policy_of(before), policy_of(after)
    changes = compare(old, new)
    if output is Format.JSON:
        print_json(
            {
                "before": {"version": old.version, "hash": old.hash},
                "after": {"version": new.version, "hash": new.hash},
                "changes": changes,
            }
        )
    else:
        print_changes(old, new, changes)
    if changes:
        raise typer.Exit(ExitCode.FAILED)


@app.command("schema")
def schema(output: Output = Format.JSON) -> None:
    """Print the JSON Schema of policy files, for editors; published as docs/policy.schema.json."""
    if output is Format.JSON:
        typer.echo(json.dumps(policy_schema(), indent=2))
        return
    print_table(
        "keys at the top of a policy",
        ("key", "what"),
        ((k, v.get("description", "")) for k, v in policy_schema()["properties"].items()),
    )


app.command("test")(policy_tests.run_tests)
