"""The rules about approvals: who may say yes, to what, and how many of them it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import (
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from breakfix.model import Action, FailureClass, Purpose, Tier
from breakfix.policy_rule import Rule


class TierRule(Rule):
    """How many people must say yes. All that is given must match; of all rules that match, and of
    what `ask_before` and the class's mode ask for, the strictest holds.
    """

    needs: Tier
    before: Purpose = Purpose.REPAIR
    actions: tuple[Action, ...] = Field((), description="Any of these; none given: every action")
    classes: tuple[FailureClass, ...] = Field((), description="Any of these failure classes")
    gang_gpus_over: int | None = Field(
        None, ge=0, description="GPUs of gangs that run on other nodes too, and would stop"
    )
    gpus_over: int | None = Field(None, ge=0, description="GPUs that would stop, in all")
    pods_over: int | None = Field(None, ge=0, description="Pods that would have to leave the node")

    @model_validator(mode="after")
    def _return_stops_nothing(self) -> TierRule:
        sizes = (self.gang_gpus_over, self.gpus_over, self.pods_over)
        if self.before is Purpose.RETURN and any(size is not None for size in sizes):
            msg = "a return stops nothing: gang_gpus_over, gpus_over, pods_over are for repairs"
            raise ValueError(msg)
        return self


class Approvals(Rule):
    """Who may say yes, and to what."""

    approvers: tuple[str, ...] = ()  # empty: nobody may approve
    ask_before: frozenset[Literal["repair", "return"]] = frozenset({"repair", "return"})
    gang_gpus: int = Field(
        0, ge=0, description="A gang on several nodes that is larger is asked about in every mode"
    )
    tiers: tuple[TierRule, ...] = Field((), description="What wants more people than that")
    ledger_roles: Mapping[str, str] = Field(
        default_factory=dict,
        description="Role of the ledger's database -> the approver whose own it is; answers at the"
        " command line count for no other",
    )
    annotation_returns: bool = Field(
        default=False,
        description="Whether the node annotation remediation.medik8s.io/manually-confirmed-healthy"
        " is a yes to a return that wants one person",
    )

    @field_validator("approvers")
    @classmethod
    def _one_name_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        folded = [name.strip().casefold() for name in value]
        if "" in folded or len(set(folded)) < len(folded):
            msg = "each approver once, by a name that differs from the others in more than case"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _roles_are_approvers(self) -> Approvals:
        strangers = sorted(set(self.ledger_roles.values()) - set(self.approvers))
        if strangers:
            msg = f"ledger_roles: {', '.join(strangers)} is not one of approvers"
            raise ValueError(msg)
        return self

    def shortcomings(self) -> list[str]:
        """What nobody could ever approve by these rules, in sentences; it is not wrong."""
        if not self.approvers:
            return ["approvals.approvers names nobody: whatever is asked about is never done"]
        if len(self.approvers) < Tier.TWO.people and any(t.needs is Tier.TWO for t in self.tiers):
            return ["approvals.tiers wants two people for some things, and approvers names one"]
        return []

    @field_serializer("ask_before")
    def _in_order(self, value: frozenset[str]) -> list[str]:
        """A set has another order in every process; the policy's hash must not."""
        return sorted(value)
