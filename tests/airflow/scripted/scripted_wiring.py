"""Services of the scripted flow: a ledger in JSON files, the real settings, the real time."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from breakfix.flow.services import Services
from breakfix.model import (
    Action,
    Answer,
    Approval,
    Case,
    Decision,
    FailureClass,
    GivenAnswer,
    NodeState,
    Purpose,
)

FOLDER = Path(os.environ["SCRIPTED_FLOW"])
QUESTIONS = {"approve_repair": Purpose.REPAIR, "approve_return": Purpose.RETURN}


def script_of(case_id):
    return json.loads((FOLDER / f"{case_id}.json").read_text())


def calls_of(case_id):
    path = FOLDER / f"{case_id}.calls"
    return path.read_text().split() if path.exists() else []


def record_call(case_id, stage):
    with (FOLDER / f"{case_id}.calls").open("a") as f:
        f.write(f"{stage}\n")


class ScriptedClock:
    def now(self):
        return datetime.now(UTC)


class ScriptedLedger:
    def case(self, case_id):
        script, now = script_of(case_id), datetime.now(UTC)
        return Case(
            id=case_id,
            cluster="test",
            node=f"node-{case_id}",
            node_uid="u",
            fence=script["fence"],
            state=NodeState.QUARANTINED,
            failure_class=FailureClass.GPU_OFF_BUS,
            action=Action.REBOOT_NODE,
            confidence=0.97,
            plan_hash="0123456789abcdef",
            reason="XID 79 on GPU 3",
            opened_at=now,
            updated_at=now,
            boot_id="b",
            requester=script.get("requester", "fleet_sweep"),
        )

    def steps(self, case_id):
        return ()

    def answers(self, case_id):
        return tuple(GivenAnswer(case_id, p, a, g) for p, a, g in given_answers(case_id))

    def approvals(self, case_id):
        found = []
        for purpose in Purpose:
            path = FOLDER / f"{case_id}.{purpose}.json"
            if path.exists():
                a = json.loads(path.read_text())
                found.append(
                    Approval(
                        case_id=case_id,
                        fence=a["fence"],
                        purpose=purpose,
                        plan_hash="0123456789abcdef",
                        asked_at=datetime.fromisoformat(a["asked_at"]),
                        expires_at=datetime.fromisoformat(a["expires_at"]),
                        decision=Decision(a["decision"]),
                        approver=a.get("approver", ""),
                        channel=a.get("channel", ""),
                        note=a.get("note", ""),
                        needed=a.get("needed", 1),
                    )
                )
        return found


def write_approval(case_id, purpose, **fields):
    path = FOLDER / f"{case_id}.{purpose}.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **fields}))


def given_answers(case_id):
    """(purpose, asked_at, answer) of what was answered and counted, as the ledger would keep it."""
    path = FOLDER / f"{case_id}.answers.json"
    for line in path.read_text().splitlines() if path.exists() else ():
        a = json.loads(line)
        at, asked_at = (datetime.fromisoformat(a[k]) for k in ("at", "asked_at"))
        answer = Answer(a["approver"], a["is_yes"], a["channel"], at)
        yield Purpose(a["purpose"]), asked_at, answer


def keep_answer(case_id, purpose, asked_at, answer):
    kept = {"approver": answer.approver, "is_yes": answer.is_yes, "channel": answer.channel}
    kept |= {"at": answer.at.isoformat(), "asked_at": asked_at.isoformat(), "purpose": purpose}
    with (FOLDER / f"{case_id}.answers.json").open("a") as f:
        f.write(json.dumps(kept) + "\n")


def build_services(settings, *, needs_ledger, needs_metrics=True, policy=None):
    return Services(
        metrics=None,
        cluster=None,
        policy=SimpleNamespace(
            drain=SimpleNamespace(poll_s=1.0),
            approvals=SimpleNamespace(approvers=("oncall", "admin")),
        ),
        settings=settings,
        clock=ScriptedClock(),
        notifier=None,
        ledger=ScriptedLedger() if needs_ledger else None,
    )
