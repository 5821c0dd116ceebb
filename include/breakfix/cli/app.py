"""The commands, gathered."""

from __future__ import annotations

import typer

from breakfix.cli import (
    approvals,
    audit,
    breaker,
    canary,
    cases,
    changes,
    circuits,
    drain,
    emergency,
    judge,
    limits,
    metrics,
    policy,
    recovery,
    replay,
    report,
    reviews,
    setup,
    switch,
    validate,
)

app = typer.Typer(
    name="breakfix",
    help="Break-fix automation for GPU fleets on Kubernetes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 2 usage or settings, 3 refused, 4 unreachable, 5 unsound.",
)
app.command("judge")(judge.judge)
app.command("plan")(judge.plan)
app.command("validate")(validate.validate)
app.command("canary")(canary.canary)
app.command("drain")(drain.drain)
app.command("approvals")(approvals.approvals)
app.command("approve")(approvals.approve)
app.command("reconcile")(recovery.reconcile)
app.command("undo")(recovery.undo)
app.add_typer(cases.app, name="case")
app.add_typer(reviews.app, name="review")
app.add_typer(changes.app, name="change")
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
app.add_typer(setup.app, name="ledger")
app.command("replay")(replay.replay)
app.command("metrics")(metrics.metrics)
app.command("report")(report.report)
app.command("limits")(limits.limits)
app.add_typer(breaker.app, name="breaker")
app.add_typer(emergency.app, name="emergency")
app.command("circuits")(circuits.circuits)
app.command("halt")(switch.halt)
app.command("resume")(switch.resume)
