"""Steps of watches: they are requested, approved, cancelled, and rent when the market allows it."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from hypothesis import strategies as st

from tests.machine.assistants import Assistants
from tests.machine.clients import OUTSIDER, ROLES
from tests.machine.drawing import answers, halts, lengths, numbers, roles, step, which_server
from tests.machine.halts import Halt
from tests.machine.market import MODELS, Json
from tests.machine.surroundings import Surroundings

_A_LOOK: Final = 60  # seconds

ceilings = st.sampled_from(["0.12", "0.2", "0.3", "0.45"])
# An offer at this multiple of the ceiling. None: someone else rents the server.
offers = st.sampled_from(["0.5", "0.9", "0.99", "1", "1.02", "1.3", None])
low = st.sampled_from(["0.5", "0.9", "0.99"])


def watch_wishes_of(**fixed: st.SearchStrategy[object]) -> st.SearchStrategy[Json]:
    """Return a strategy for what a caller may want to be rented later. `fixed` narrows it."""
    wide: dict[str, st.SearchStrategy[object]] = {
        "gpu": st.sampled_from(MODELS),
        "max_usd_per_hour": ceilings.map(float),
        "hours": lengths,
        "max_orders": st.sampled_from([1, 1, 2]),
        "expires_hours": st.sampled_from([0.5, 3, 20]),
    }
    return st.fixed_dictionaries({**wide, **fixed})


watch_wishes = watch_wishes_of()


class Watches(Assistants, Surroundings):
    """Approvals for later, the prices that they wait for, and the processes that check them."""

    @step(1, who=roles, wish=watch_wishes, answer=answers, halt=halts)
    def watch(self, who: int, wish: Json, answer: str, halt: Halt | None) -> None:
        self._step(
            "watch", lambda: self.stage.watch(who, wish, answer, halt), who=who, **wish, answer=answer, halt=halt
        )

    @step(2, wanted=numbers, which=which_server, times=offers)
    def offer(self, wanted: int, which: int, times: str | None) -> None:
        """Free a server below or above what a watch may pay, or let someone else rent it."""

        def work() -> bool:
            found = self.stage.watches()
            if not found:
                return False
            ask, market = found[wanted % len(found)]["ask"], self.stage.market
            fit = [one for one in market.servers if market.models[one].endswith(ask["gpu"])]
            price = None if times is None else Decimal(str(ask["max_usd_per_hour"])) * Decimal(times)
            market.offer(fit[which % len(fit)], price)
            return True

        self._step("offer", work, wanted=wanted, which=which, times=times)

    @step(2, who=st.sets(roles, min_size=1, max_size=2), halt=halts)
    def look(self, who: set[int], halt: Halt | None) -> None:
        """Let one process check the watches a minute later, or two at once. The first may be killed meanwhile."""

        def work() -> bool:
            if not self.stage.watches():
                return False
            self.stage.market.advance(_A_LOOK)
            for number in sorted(who):
                client = self.stage.client(self.stage.free(number))
                if client.state == "idle":
                    client.poll(halt if number == min(who) else None)
            return True

        self._step("look", work, who=sorted(who), halt=halt)

    @step(1, who=roles, which=numbers, terminal=st.booleans(), halt=halts)
    def call_off(self, who: int, which: int, terminal: bool, halt: Halt | None) -> None:
        """Cancel a watch, through an assistant or in a terminal."""

        def work() -> bool:
            found = self.stage.watches()
            if not found:
                return False
            watch = found[which % len(found)]
            return self.stage.decline(watch) if terminal else self.stage.call_off(who, watch, halt)

        self._step("call off", work, who=who, which=which, terminal=terminal, halt=halt)

    @step(4, who=roles, wish=watch_wishes, which=which_server, times=low, halt=halts, calm=st.booleans())
    def wait_and_rent(self, who: int, wish: Json, which: int, times: str, halt: Halt | None, calm: bool) -> None:
        """Let the price fall below what was approved. The process that checks may be killed around the rental. `calm`:
        earlier faults and freezes are removed first."""
        if calm:
            self.mend()
            self.lift()
        self.watch(who, wish, "yes", None)
        self.offer(-1, which, times)
        self.look({who}, halt)
        self.look({(who + 1) % len(ROLES)}, None)

    @step(1, wish=watch_wishes, yes=st.sampled_from([True, True, False]), which=which_server)
    def approve_in_a_terminal(self, wish: Json, yes: bool, which: int) -> None:
        """Make a watch that waits for a terminal, and call again once it was decided there."""
        self.watch(OUTSIDER, wish, "yes", None)

        def work() -> bool:
            waiting = [one for one in self.stage.terminal.waiting() if one.verb == "create_watch"]
            if not waiting:
                return False
            return self.stage.terminal.decide(max(waiting, key=lambda quote: quote.created_at), yes=yes)

        self._step("decide a watch", work, yes=yes)
        self.watch(OUTSIDER, wish, "yes", None)
        self.offer(-1, which, "0.9")
        self.look({OUTSIDER}, None)

    @step(1, who=roles, wish=watch_wishes, which=which_server, terminal=st.booleans())
    def fall_too_late(self, who: int, wish: Json, which: int, terminal: bool) -> None:
        """Let the price fall after the watch was cancelled."""
        self.watch(who, {**wish, "max_usd_per_hour": 0.1}, "yes", None)
        self.call_off(who, -1, terminal, None)
        self._step("price", lambda: self.stage.market.offer(self.stage.market.servers[which], Decimal("0.09")))
        self.look({who}, None)
