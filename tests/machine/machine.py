"""The machine: assistants, people, a marketplace that fails and moves, and signals, in any order.

Every argument is drawn from a fixed range and taken modulo the number of choices, so that a seed gives the same steps
whatever the processes make of them.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.machine.clients import ROLES
from tests.machine.drawing import (
    STEPS,
    drawn,
    halts,
    roles,
    skips,
    step,
    strangers,
    wishes,
    wishes_of,
)
from tests.machine.halts import Halt
from tests.machine.market import CLORE, USD, Json
from tests.machine.watches import Watches


class Machine(Watches):
    """All steps together, and combinations that would seldom come up by chance."""

    @step(3, who=roles, wish=wishes, skip=skips, kill=st.booleans(), seconds=st.sampled_from([400, 5]))
    def sleep_over_a_send(self, who: int, wish: Json, skip: int, kill: bool, seconds: int) -> None:
        """Stop or kill a process around the send itself, while time passes and others look."""
        self.stage.client((who + 1) % len(ROLES))
        self.create(who, wish, "yes", Halt("spend", skip, kill), True, 1)
        self.time_passes(seconds)
        self.resume_all()

    @step(
        2,
        who=roles,
        wish=wishes,
        kind=st.sampled_from(["reset", "hang_before", "code1_before"]),
        image=strangers,
        coin=st.sampled_from([USD, USD, CLORE]),
        seconds=st.sampled_from([0, 0, 200, 1_000]),
    )
    def lose_to_a_stranger(self, who: int, wish: Json, kind: str, image: str, coin: str, seconds: int) -> None:
        """Lose a create before it arrives, then let a stranger rent that server some time later."""
        self._step("fault", lambda: self.stage.market.fault(kind, "create_order", seconds=0.15), kind=kind)
        self.create(who, {**wish, "others": []}, "yes", None, True, 1)
        if seconds:
            self.time_passes(seconds)
        self.rent_elsewhere(wish["server"], coin, image)
        self.list_orders(who)

    @step(2, wanted=st.lists(wishes, min_size=3, max_size=3))
    def agree_to_all(self, wanted: list[Json]) -> None:
        """Approve three questions one after another. Each fits the limits, but together they may not."""
        for who, wish in zip((0, 1, 2), wanted, strict=True):
            self.create(who, {**wish, "others": []}, "later", None, True, 1)
        for _ in wanted:
            self.answer_later(0, "yes")

    @step(
        2,
        who=roles,
        wish=wishes_of(kind=st.just("spot"), others=st.just([])),
        percent=st.sampled_from([110, 150, 200]),
        ignored=st.booleans(),
        halt=halts,
    )
    def raise_and_cancel(self, who: int, wish: Json, percent: int, ignored: bool, halt: Halt | None) -> None:
        """Raise a bid, then cancel the order, which may not work at once."""
        self.rent(who, wish)
        self.bid(who, -1, percent, "yes", halt)
        if ignored:
            self.fault("cancel_ignored", "cancel_order", 5, 0, 1.0)
        self.cancel(who, -1, "yes", None)


class Driven(Machine):
    """The machine with its only rule: any step."""

    @rule(drawn=drawn())
    def step(self, drawn: tuple[str, Json]) -> None:
        name, arguments = drawn
        STEPS[name].do(self, **arguments)
