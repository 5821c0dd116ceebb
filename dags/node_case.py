"""One case: from quarantine to return or escalation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, TaskGroup

from breakfix.flow.stages import Stage
from breakfix.model import FailureClass, Purpose
from breakfix_airflow.by_hand import BeginOperator
from breakfix_airflow.climbing import NextRungOperator
from breakfix_airflow.ending import SettleRunOperator
from breakfix_airflow.operators import QuestionOperator, SettleQuestionOperator, StageOperator

MANUAL = """
### One case of one node, from quarantine to return or escalation

A run works on one case at one fence and is named `<case>.<fence>`. Runs are started by
`fleet_sweep` and `reconcile_cases`; you start one by hand only to open a case for a node.

**The road**

`begin` >> [`approve_repair` >> `settle_repair`] >> [`approve_repair_second` >>
`settle_repair_second`] >> `drain` >> one repair (`restart_device_plugin`, `reset_gpu`,
`reboot_node`, `power_cycle`, `replace_node`, `open_vendor_case`) >>
`check_gpus` >> `check_operator` >> `run_diag` >> `run_bandwidth` >> `check_signals` >>
[`approve_return` >> `settle_return`] >> [`approve_return_second` >> `settle_return_second`] >>
`return_node` >> `settle_run`

Each task asks the ledger and the cluster where the case stands, does what is left to do, and
points to the next. Tasks that are not pointed to are skipped: pink is normal.

| from | to | means |
|---|---|---|
| `begin` | `approve_repair` | policy wants a person's yes before this repair |
| `begin` | `drain` | no question needed, or the plan has its yes already |
| `begin` | a repair, `check_gpus` | an earlier run of this case came that far |
| `settle_repair` | `drain` | an approver by policy said yes, in time |
| `settle_repair` | `escalate` | no, nobody, not an approver, or too late |
| `settle_repair...` | a repair | yes to a further rung: the node is drained |
| `settle_...` | `approve_..._second` | the tier wants two people; one has said yes |
| `settle_..._second` | `settle_run` | nobody new has said yes: the next run asks again |
| `drain` | a repair | nothing left on the node that a drain takes |
| `drain` | `escalate` | a pod may not go, it is held for hardware, or overdue and policy says so |
| `drain` | `settle_run` | on hold: overdue, or a successor fails elsewhere; or given back |
| a repair, any check or run of the validation | `next_rung` | it failed, or proved nothing |
| `next_rung` | `settle_run` | the case climbed: its next run asks for the next rung of the ladder |
| `next_rung` | `escalate` | no rung is left or allowed, or it cannot be told what was done |
| `open_vendor_case` | `escalate` | the vendor has the case, the node is held for hardware |
| `check_signals` | `approve_return` | validated; policy wants a person's yes before the return |
| `settle_return` | `return_node` | yes |
| `settle_return` | `settle_run` | nobody answered: the node stays out and is asked about again |
| any | `escalate` | the node stays out: a person or hardware is needed |
| any | `settle_run` | the case ended, is held, was halted, or belongs to a newer run |

**Params**

- `case_id`, `fence`: set by the runs that start this one. A run with another name than
  `<case>.<fence>` is refused.
- `node`, `failure_class`, `dry_run`: a case by hand. Give a node, and the class whose repair you
  want; without a class the node is drained and stays out until the case is aborted. The run opens
  the case through the same guardrails as a sweep, starts the case's own run and ends. A refusal
  is in the log of `begin`; so it is for a run that was cleared, which names nobody: trigger a new
  one. With `dry_run` it says what would be done to the node and to each pod,
  and changes nothing.

**How to answer a question.** Open the run, *Required Actions*, choose Approve or Reject. Or mark
the single task `approve_...` as success (yes) or failed (no). What counts:

- only users whom the policy lists under `approvals.approvers`, and for a repair not the one who
  asked for it;
- a mark counts only when Airflow's audit log shows one person alone at the task since it was
  asked. Anybody else's mark, note, clear or XCom on it makes it no. Marking through the list of
  several tasks is not logged by Airflow and does not count;
- where the policy's tier wants two people, the question is asked twice: the second one says who
  has said yes, and wants another person's. One no is no;
- silence before a repair is no: the case escalates. Silence before a return keeps the node out.

Your answer is stored in the ledger with your name and the plan it was given for, also when it does
not count, with the reason. Until the act has begun a no takes a yes back (`breakfix approve CASE
--no`); any other second answer changes nothing. What was answered at the command line or by the
node's annotation wakes the question within a sweep.

**When it is red.** A red run never means that a node was let go: nothing here uncordons but
`return_node`. Read the log of the first red task.

- A setting, a connection or a role is wrong: the line says which. Mend it; `reconcile_cases`
  resumes the case.
- Something did not answer (Kubernetes, Prometheus, the ledger): the task was retried three times.
  `reconcile_cases` starts the next run of the case within ten minutes.
- *the question was lost*: its worker died before anybody answered. The next run asks again.

**Clear, retry, mark, delete.** Any task may be cleared or run twice: what was done is not done
again, because every effect is in the ledger before it happens. Clearing a question asks anew.
Marking a stage as success does not do its work and sends the case nowhere: the run turns red and
`reconcile_cases` takes the case over. Deleting a run loses nothing. To stop one case use
`breakfix case hold` or `breakfix case abort`; to stop all, `breakfix halt`, or pause this DAG,
which counts as halt.

**Pools** `breakfix_drain`, `breakfix_repair`, `breakfix_validate` throttle the work of tasks.
They are not the safety limit: that is the policy's, kept in the ledger. Make them before you
unpause: `airflow pools set breakfix_drain 16 "drains at a time"`, and so on.
"""

DRAIN_POOL = "breakfix_drain"
REPAIR_POOL = "breakfix_repair"
VALIDATE_POOL = "breakfix_validate"

# A stage looks before it acts, so it may be tried again; what waits does so without a worker.
RETRY = {
    "retries": 3,
    "retry_delay": timedelta(seconds=15),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(minutes=15),
    "trigger_rule": "none_failed_min_one_success",
}

PARAMS = {
    "case_id": Param(
        None,
        type=["null", "string"],
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        title="Case",
        description="Set by the runs that start this one; leave empty to open a case by hand",
    ),
    "fence": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Fence",
        description="Set together with the case",
    ),
    "node": Param(
        None,
        type=["null", "string"],
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        title="Node",
        description="By hand: the node to open a case for",
    ),
    "failure_class": Param(
        None,
        type=["null", "string"],
        enum=[None, *(str(c) for c in FailureClass)],
        title="Failure class",
        description="By hand: whose repair is wanted; empty drains the node and keeps it out",
    ),
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="By hand: say what would be done and change nothing",
    ),
}

with DAG(
    "node_case",
    description="Drains, repairs, validates and returns one node, or escalates it",
    doc_md=MANUAL,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # above the number of cases that may be open: those that wait must not block others
    max_active_runs=500,
    max_active_tasks=16,
    default_args=RETRY,
    params=PARAMS,
    render_template_as_native_obj=False,
    tags=["breakfix"],
) as dag:
    begin = BeginOperator(
        doc_md="Completes the quarantine and finds out how far the case has come."
    )
    approve_repair = QuestionOperator(
        purpose=Purpose.REPAIR,
        trigger_rule="none_failed_min_one_success",
        doc_md="Waits for an approver. Approve lets the node be drained and repaired.",
    )
    settle_repair = SettleQuestionOperator(
        stage=Stage.SETTLE_REPAIR,
        purpose=Purpose.REPAIR,
        doc_md="Reads the answer at its source, records it in the ledger, and goes where it leads.",
    )
    approve_repair_second = QuestionOperator(
        purpose=Purpose.REPAIR,
        is_second=True,
        trigger_rule="none_failed_min_one_success",
        doc_md="Waits for a second approver. It says who has said yes already.",
    )
    settle_repair_second = SettleQuestionOperator(
        stage=Stage.SETTLE_REPAIR_SECOND,
        purpose=Purpose.REPAIR,
        is_second=True,
        doc_md="Reads the second answer at its source, records it, and goes where both lead.",
    )
    with TaskGroup("drain_node", prefix_group_id=False, tooltip="Evict what a drain takes"):
        drain = StageOperator(
            stage=Stage.DRAIN,
            pool=DRAIN_POOL,
            doc_md="Brings each pod to leave by its ladder (policy `drain`), until the policy's"
            " deadline; then waits until the pods' successors are Ready elsewhere.",
        )
    with TaskGroup("repair", prefix_group_id=False, tooltip="One repair, dispatched once"):
        repairs = [
            StageOperator(stage=stage, pool=REPAIR_POOL, doc_md=text)
            for stage, text in (
                (
                    Stage.RESTART_DEVICE_PLUGIN,
                    "Deletes the node's device plugin pod; it comes back.",
                ),
                (Stage.RESET_GPU, "Resets the GPUs with a pod pinned to the node."),
                (
                    Stage.REBOOT_NODE,
                    "Reboots the node once, and waits for another boot id and Ready.",
                ),
                (
                    Stage.POWER_CYCLE,
                    "Has its BMC or a webhook cut the power; done when it runs another boot.",
                ),
                (
                    Stage.REPLACE_NODE,
                    "Has a webhook re-provision the machine, or put another one in its place.",
                ),
                (
                    Stage.OPEN_VENDOR_CASE,
                    "Sends the evidence to the vendor's webhook; the node is held for hardware.",
                ),
            )
        ]
    with TaskGroup("validate", prefix_group_id=False, tooltip="Prove that the node is good"):
        check_gpus = StageOperator(
            stage=Stage.CHECK_GPUS,
            pool=VALIDATE_POOL,
            doc_md="Waits until the node is Ready with all its GPUs allocatable.",
        )
        check_operator = StageOperator(
            stage=Stage.CHECK_OPERATOR,
            pool=VALIDATE_POOL,
            doc_md="Waits for the GPU operator's own validation, where the cluster has it.",
        )
        run_diag = StageOperator(
            stage=Stage.RUN_DIAG,
            pool=VALIDATE_POOL,
            doc_md="Runs DCGM's diagnostic on all GPUs of the node, from level 1 up.",
        )
        run_bandwidth = StageOperator(
            stage=Stage.RUN_BANDWIDTH,
            pool=VALIDATE_POOL,
            doc_md="Measures NCCL and copies against the floors of the SKU, where images are set.",
        )
        check_signals = StageOperator(
            stage=Stage.CHECK_SIGNALS,
            pool=VALIDATE_POOL,
            doc_md="Waits until no signal has spoken for as long as the policy says, and compares"
            " counters with before the repair.",
        )
    approve_return = QuestionOperator(
        purpose=Purpose.RETURN,
        trigger_rule="none_failed_min_one_success",
        doc_md="Waits for an approver. Approve lets the node take work again.",
    )
    settle_return = SettleQuestionOperator(
        stage=Stage.SETTLE_RETURN,
        purpose=Purpose.RETURN,
        doc_md="Reads the answer at its source, records it in the ledger, and goes where it leads.",
    )
    approve_return_second = QuestionOperator(
        purpose=Purpose.RETURN,
        is_second=True,
        trigger_rule="none_failed_min_one_success",
        doc_md="Waits for a second approver. It says who has said yes already.",
    )
    settle_return_second = SettleQuestionOperator(
        stage=Stage.SETTLE_RETURN_SECOND,
        purpose=Purpose.RETURN,
        is_second=True,
        doc_md="Reads the second answer at its source, records it, and goes where both lead.",
    )
    return_node = StageOperator(
        stage=Stage.RETURN_NODE,
        doc_md="Takes off what the case put on the node. The sweep watches it from here on.",
    )
    next_rung = NextRungOperator(
        doc_md="The repair did not help: the case climbs to the next rung, or goes to people.",
    )
    escalate = StageOperator(
        stage=Stage.ESCALATE,
        doc_md="Ends the case with the node out of service, and tells people why.",
    )
    settle_run = SettleRunOperator(
        doc_md="Fails the run when one of its stages failed; touches nothing.",
    )

    begin >> [approve_repair, drain, *repairs, check_gpus, approve_return, escalate, settle_run]
    approve_repair >> settle_repair
    settle_repair >> [drain, *repairs, approve_repair_second, escalate, settle_run]
    approve_repair_second >> settle_repair_second >> [drain, *repairs, escalate, settle_run]
    drain >> [*repairs, check_gpus, escalate, settle_run]
    for repair in repairs:
        repair >> [check_gpus, next_rung, escalate, settle_run]
    check_gpus >> [check_operator, next_rung, escalate, settle_run]
    check_operator >> [run_diag, next_rung, escalate, settle_run]
    run_diag >> [run_bandwidth, next_rung, escalate, settle_run]
    run_bandwidth >> [check_signals, next_rung, escalate, settle_run]
    check_signals >> [approve_return, return_node, next_rung, escalate, settle_run]
    next_rung >> [escalate, settle_run]
    approve_return >> settle_return
    settle_return >> [return_node, approve_return_second, escalate, settle_run]
    approve_return_second >> settle_return_second >> [return_node, escalate, settle_run]
    return_node >> [escalate, settle_run]
    escalate >> settle_run
