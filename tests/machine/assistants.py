"""Steps of assistants and of the people who answer them."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from tests.machine.clients import ROLES
from tests.machine.drawing import answers, halts, lengths, numbers, roles, step, wishes
from tests.machine.halts import Halt
from tests.machine.market import Json
from tests.machine.playing import Playing


class Assistants(Playing):
    """Assistants call tools. People answer at once, later, or in a terminal."""

    @step(
        6, who=roles, wish=wishes, answer=answers, halt=halts, wait=st.booleans(), copies=st.sampled_from([1, 1, 1, 2])
    )
    def create(self, who: int, wish: Json, answer: str, halt: Halt | None, wait: bool, copies: int) -> None:
        arguments = self._arguments(wish)
        work = lambda: self.stage.create(who, arguments, answer, halt, copies)  # noqa: E731 - named by its use
        self._step("create", work, wait=wait or halt is not None, who=who, **arguments, answer=answer, halt=halt)

    @step(4, who=roles, wish=wishes)
    def rent(self, who: int, wish: Json) -> None:
        """Make a plain rental that succeeds, so that there is something to break."""
        arguments = self._arguments({**wish, "others": []})
        self._step("rent", lambda: self.stage.create(who, arguments, "yes", None), who=who, **arguments)

    @step(3, which=numbers, who=roles, same=st.booleans(), answer=answers, halt=halts)
    def again(self, which: int, who: int, same: bool, answer: str, halt: Halt | None) -> None:
        def work() -> bool:
            if not self.stage.wishes:
                return False
            maker, arguments = self.stage.wishes[-1 - which % min(4, len(self.stage.wishes))]
            return self.stage.create(maker if same else who, arguments, answer, halt)

        self._step("again", work, which=which, who=who, same=same, answer=answer, halt=halt)

    @step(3, first=roles, second=roles, wish=wishes, answers=st.tuples(answers, answers))
    def together(self, first: int, second: int, wish: Json, answers: tuple[str, str]) -> None:
        arguments = self._arguments(wish)

        def work() -> bool:
            one = self.stage.create(first, arguments, answers[0], None)
            return (first != second and self.stage.create(second, arguments, answers[1], None)) or one

        self._step("together", work, first=first, second=second, **arguments, answers=answers)

    @step(4, wanted=roles, which=numbers, answer=answers, halt=halts)
    def cancel(self, wanted: int, which: int, answer: str, halt: Halt | None) -> None:
        def work() -> bool:
            found = self._order_ids()
            if not found:
                return False
            who = self.stage.free(wanted)
            order_id = found[which % len(found)]
            can_ask = self.stage.client(who).can_ask and answer != "error"
            if order_id not in self.stage.market.elsewhere and not can_ask:
                self.stage.consents.cancels.add(order_id)  # it is cancelled without asking, because it was made here
            return self.stage.act(who, "cancel_order", {"order_id": order_id}, answer, halt)

        self._step("cancel", work, who=wanted, which=which, answer=answer, halt=halt)

    @step(4, wanted=roles, which=numbers, percent=st.sampled_from([92, 95, 110, 130, 200]), answer=answers, halt=halts)
    def bid(self, wanted: int, which: int, percent: int, answer: str, halt: Halt | None) -> None:
        def work() -> bool:
            found = [row for row in self.stage.market.orders() if row["ended_at"] is None and row["type"] == "spot"]
            if not found:
                return False
            who = self.stage.free(wanted)
            row = found[which % len(found)]
            native = Decimal(str(row["price"])) * percent / 100
            usd = round(native * self.stage.market.rates[row["currency"]] / 24 * Decimal("1.0125"), 6)
            if ROLES[who].mode == "limits":
                lowest = self.stage.market.lowest_rate(
                    row["currency"], self.stage.market.clock.now() - 90, float("inf")
                )
                most = usd * 24 / Decimal("1.0125") / lowest
                self.stage.consents.bids[row["id"]] = max(self.stage.consents.bids.get(row["id"], Decimal(0)), most)
            change = {"order_id": row["id"], "bid_usd_per_hour": float(usd)}
            return self.stage.act(who, "set_spot_price", change, answer, halt)

        self._step("bid", work, who=wanted, which=which, percent=percent, answer=answer, halt=halt)

    @step(3, wanted=roles, which=numbers, hours=lengths, answer=answers, halt=halts)
    def extend(self, wanted: int, which: int, hours: float, answer: str, halt: Halt | None) -> None:
        def work() -> bool:
            found = [one for one in self._order_ids() if one not in self.stage.market.elsewhere]
            if not found:
                return False
            who, order_id = self.stage.free(wanted), found[which % len(found)]
            if ROLES[who].mode == "limits":
                self.stage.consents.extended(order_id, Decimal(str(hours)))
            return self.stage.act(who, "extend_order", {"order_id": order_id, "hours": hours}, answer, halt)

        self._step("extend", work, who=wanted, which=which, hours=hours, answer=answer, halt=halt)

    @step(who=roles)
    def list_orders(self, who: int) -> None:
        self._step("list", lambda: self.stage.act(who, "list_orders", {}, "no", None), who=who)

    # People

    @step(which=numbers, answer=st.sampled_from(["yes", "yes", "yes", "no", "cancel"]))
    def answer_later(self, which: int, answer: str) -> None:
        def work() -> bool:
            found = [one for one in self.stage.clients if one.state == "asking"]
            if found:
                self.stage.answer(found[which % len(found)], answer)
            return bool(found)

        self._step("answer", work, which=which, answer=answer)

    @step(3, which=numbers, yes=st.sampled_from([True, True, True, False]))
    def decide(self, which: int, yes: bool) -> None:
        def work() -> bool:
            found = self.stage.terminal.waiting()
            if found:
                self.stage.terminal.decide(found[which % len(found)], yes=yes)
            return bool(found)

        self._step("decide", work, which=which, yes=yes)

    # The brake

    @step(1)
    def freeze(self) -> None:
        self._step("freeze", self.stage.freeze)

    @step(1, who=roles, halt=halts)
    def stop(self, who: int, halt: Halt | None) -> None:
        """Freeze spending and end everything made here, as `clore-mcp stop` does. The process may be killed
        meanwhile."""
        self._step("freeze", self.stage.freeze)
        self._step("stop", lambda: self.stage.end_all(who, halt), who=who, halt=halt)

    @step(3)
    def lift(self) -> None:
        self._step("lift", self.stage.terminal.lift)
