"""`drain`: take nodes out of service by hand, within the same limits, or only say what would
happen.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from breakfix.cli.actor import requester
from breakfix.cli.output import ExitCode, Format, Output, print_json, print_table, say
from breakfix.flow.by_hand import DrainReport, drain_by_hand, pods_of
from breakfix.model import PodAction, PodDecision
from breakfix.policy import Policy
from breakfix.settings import load_settings
from breakfix.wiring import build_cluster, build_services, load_policy

Nodes = Annotated[list[str], typer.Argument(help="Names of the nodes.")]


def drain(
    nodes: Nodes,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Unmanaged pods may go too.")] = False,
    delete_emptydir_data: Annotated[
        bool, typer.Option("--delete-emptydir-data", help="Pods with disk emptyDir may go too.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Kept in the audit log.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Cordon and drain nodes as kubectl drain --ignore-daemonsets does, within the limits.

    A drained node stays out until `breakfix case abort`. Exit 3 when a guardrail refused a node.
    """
    settings = load_settings()
    policy = _with_flags(load_policy(settings), force=force, empty_dir=delete_emptydir_data)
    if dry_run:
        _print_pods(pods_of(build_cluster(settings), policy, nodes), output)
        return
    services = build_services(settings, needs_ledger=True, needs_metrics=False, policy=policy)
    reports = []
    for node in nodes:
        report = drain_by_hand(
            services,
            node,
            requester=requester(services),
            reason=reason or "drained by hand",
            tell=_progress(output),
        )
        reports.append(report)
    _print_reports(reports, output)
    if not all(r.is_done for r in reports):
        raise typer.Exit(ExitCode.REFUSED)


def _with_flags(policy: Policy, *, force: bool, empty_dir: bool) -> Policy:
    drain_rule = policy.drain.model_copy(
        update={
            "may_delete_unmanaged": policy.drain.may_delete_unmanaged or force,
            "may_delete_disk_empty_dir": policy.drain.may_delete_disk_empty_dir or empty_dir,
        }
    )
    return policy.model_copy(update={"drain": drain_rule})


def _progress(output: Format) -> Any:
    return say if output is Format.TABLE else (lambda _text: None)


def pod_json(decision: PodDecision) -> dict[str, Any]:
    """One pod of `drain --dry-run -o json`."""
    return {
        "namespace": decision.namespace,
        "name": decision.name,
        "action": str(decision.action),
        "reason": decision.reason,
        "order": decision.order,
        "ladder": [{"do": str(r.do), "for_s": r.for_s} for r in decision.ladder],
    }


def _print_pods(by_node: dict[str, list[PodDecision]], output: Format) -> None:
    if output is Format.JSON:
        print_json(
            {"nodes": [{"node": n, "pods": [pod_json(d) for d in ds]} for n, ds in by_node.items()]}
        )
    else:
        for node, decisions in by_node.items():
            print_table(
                f"drain of {node} (dry run, nothing is changed)",
                ("namespace", "pod", "what", "why"),
                (
                    (d.namespace, d.name, d.climbs or d.action, d.reason)
                    for d in sorted(decisions, key=lambda d: d.order)
                ),
            )
    if any(d.action is PodAction.REFUSE for ds in by_node.values() for d in ds):
        raise typer.Exit(ExitCode.REFUSED)


def _print_reports(reports: list[DrainReport], output: Format) -> None:
    if output is Format.JSON:
        print_json({"nodes": reports})
        return
    print_table(
        "drain",
        ("node", "case", "done", "evicted", "left", "what"),
        (
            (r.node, r.case_id, "yes" if r.is_done else "no", r.evicted, r.left, r.text)
            for r in reports
        ),
    )
