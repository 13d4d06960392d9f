"""Broken on purpose: the yes, the limits, what is reserved, the brake, the wider yes, secrets."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

from clore_mcp.money import ZERO
from clore_mcp.rental import appraisal, claiming, judging, limits, terms
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.creating import Creating
from clore_mcp.rental.desk import Desk
from clore_mcp.rental.ends import cancels
from clore_mcp.rental.ends.stopping import Stopping
from clore_mcp.rental.envelopes import Bounds
from clore_mcp.rental.guard import Guard
from clore_mcp.rental.proposal import Proposal
from clore_mcp.state import bids, envelopes, freezing, intents
from clore_mcp.state.database import Tx
from tests.machine.breaking import mutant
from tests.machine.names import (
    CAPS,
    FROZEN,
    PAID,
    RESERVED,
    SECRETS,
    STOPPED,
    TWICE,
    UNCOVERED,
)
from tests.machine.patching import put

# The yes


@mutant(UNCOVERED)
def a_no_counts_as_a_yes() -> None:
    conclude = Guard.conclude

    async def deaf(self: Guard, held: Any, ask: Any, *, answer: bool | None, **more: Any) -> Any:
        return await conclude(self, held, ask, answer=True if answer is False else answer, **more)

    put(Guard, "conclude", deaf)


@mutant(UNCOVERED)
def nobody_needs_to_be_asked() -> None:
    put(Guard, "_yes_given_by", lambda *_: "the model")


@mutant(UNCOVERED)
def a_yes_counts_for_any_arguments() -> None:
    digest = Approvals.digest

    async def blind(self: Approvals, account: str, caller: str, ask: Any) -> str:
        same = (
            {"server_id": 1, "hours": 1.0, "ports": None, "fallback_server_ids": None}
            if "hours" in ask.__dict__
            else {}
        )
        return await digest(self, account, caller, ask.model_copy(update=same))

    put(Approvals, "digest", blind)


# The limits


@mutant(CAPS)
def limits_are_not_checked_in_the_claim() -> None:
    put(claiming, "stands_against", lambda *_: [])


@mutant(CAPS)
def limits_are_not_checked() -> None:
    put(judging, "check", lambda *_: [])


@mutant(CAPS)
def the_day_forgets_what_was_paid() -> None:
    def usage(open_: Any, released: Any, at_clore: Any) -> Any:
        return limits.usage(open_, [], [one for one in at_clore if one.active])

    put(judging, "usage", usage)


# The reservation


def _worst(change: Callable[[terms.Candidate], Decimal]) -> None:
    candidate_of = terms.candidate_of

    def smaller(*given: Any, **named: Any) -> Any:
        found = candidate_of(*given, **named)
        if isinstance(found, terms.Unfit):
            return found
        return dataclasses.replace(found, worst_usd=change(found))

    put(appraisal, "candidate_of", smaller)


@mutant(RESERVED)
def a_reservation_leaves_out_the_fee() -> None:
    _worst(lambda one: one.worst_usd / (1 + one.fee_fraction))


@mutant(RESERVED)
def a_reservation_leaves_out_the_creation_fee() -> None:
    _worst(lambda one: one.worst_usd - one.creation_fee_usd)


@mutant(RESERVED)
def a_reservation_ends_with_the_lease() -> None:
    put(terms, "_END_SLACK_HOURS", ZERO)


@mutant(RESERVED, PAID)
def a_cancel_drops_the_reservation_before_the_proof() -> None:
    send = cancels.send

    async def dropping(desk: Desk, targets: Any, **about: Any) -> Any:
        wanted = list(targets)

        def drop(tx: Tx) -> None:
            for account, order_id in wanted:
                held = intents.reservation_of_order(tx, account, order_id)
                if held is not None and held.intent_id is not None:
                    intents.release(tx, held.intent_id, ZERO, desk.clock())

        await desk.state.write(drop)
        return await send(desk, wanted, **about)

    put(cancels, "send", dropping)


@mutant(RESERVED)
def a_raised_bid_keeps_its_reservation() -> None:
    put(bids, "begin", lambda *_: None)


# The brake


@mutant(FROZEN)
def a_freeze_is_not_looked_at() -> None:
    put(freezing, "frozen", lambda tx: None)


@mutant(STOPPED)
def a_stop_ends_nothing() -> None:
    async def look_away(self: Stopping, **_: Any) -> AsyncIterator[Any]:
        nothing: list[Any] = []
        for step in nothing:
            yield step

    put(Stopping, "end_all", look_away)


# The wider yes


@mutant(UNCOVERED)
def a_wider_yes_has_no_bounds() -> None:
    put(Bounds, "cover", lambda *_: True)


@mutant(TWICE)
def a_wider_yes_is_not_used_up() -> None:
    put(envelopes, "take", lambda *_: True)


# Secrets


@mutant(SECRETS)
def a_quote_keeps_the_values_of_env() -> None:
    propose = Creating.propose

    async def keeping(self: Creating, ask: Any, account: str) -> Any:
        found = await propose(self, ask, account)
        if not isinstance(found, Proposal):
            return found
        return dataclasses.replace(found, terms={**found.terms, "call": ask.model_dump(mode="json")})

    put(Creating, "propose", keeping)
