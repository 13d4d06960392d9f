"""Steps of the marketplace, of its other customers, of time, and of the operating system."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from clore_mcp.sandbox.faults import EFFECT
from tests.machine.drawing import BUSY, numbers, roles, step, strangers, which_server
from tests.machine.market import BTC, CLORE, USD, Json
from tests.machine.playing import Playing


class Surroundings(Playing):
    """Requests fail, prices move, time passes, processes die."""

    @step(
        kind=st.sampled_from(sorted(EFFECT)),
        endpoint=st.sampled_from(BUSY),
        times=st.sampled_from([1, 1, 1, 2, 5]),
        skip=st.sampled_from([0, 0, 0, 1, 3]),
        factor=st.sampled_from([0.9, 1.02, 1.1, 1.5]),
    )
    def fault(self, kind: str, endpoint: str, times: int, skip: int, factor: float) -> None:
        seconds = 1_800.0 if kind == "late_visible" else 0.15
        more: Json = {"times": times, "skip": skip, "factor": factor, "seconds": seconds}
        if kind == "cancel_ignored":
            endpoint = "cancel_order"
        self._step(
            "fault", lambda: self.stage.market.fault(kind, endpoint, **more), kind=kind, endpoint=endpoint, **more
        )

    @step(kind=st.sampled_from(["lost_reply", "hang_after", "code1_after", "late_visible", "late_effect", "garbage"]))
    def lose_a_create(self, kind: str) -> None:
        """Add one of the worst faults: an order is made and the client doesn't learn of it."""
        seconds = 1_800.0 if kind == "late_visible" else 0.15
        self._step("lose", lambda: self.stage.market.fault(kind, "create_order", seconds=seconds), kind=kind)

    @step(3)
    def mend(self) -> None:
        self._step("mend", self.stage.market.mend)

    @step(
        change=st.sampled_from(
            [
                {"required_price": "ignored"},
                {"required_price": "ceiling"},
                {"required_price": "code1"},
                {"unknown_order": "ok"},
                {"unknown_order": "code2"},
                {"rate_limit": "arrival", "interval": 0.0},
            ]
        )
    )
    def options(self, change: Json) -> None:
        self._step("options", lambda: self.stage.market.options(**change), **change)

    @step(3, ahead=st.sampled_from([7_200.0, 86_400.0, -10_800.0]), times=st.sampled_from([1, 1, 2]))
    def date_is_wrong(self, ahead: float, times: int) -> None:
        """Send one wrong Date, or two that agree, far from the truth."""
        more: Json = {"seconds": ahead, "times": times}
        self._step("date", lambda: self.stage.market.fault("wrong_date", "my_orders", **more), **more)

    @step(
        2,
        told=st.sampled_from(
            [
                {"ct_off": 800.0}, {"ct_off": 2_592_000.0}, {"ct": "milliseconds"}, {"ct": "text"}, {"ct": "null"},
                {"repeat_rows": True},
            ]
        ),
    )  # fmt: skip
    def rows_are_odd(self, told: Json) -> None:
        """Change how every order is listed, until it is mended."""
        self._step("rows", lambda: self.stage.market.options(**told), **told)

    @step(3, which=numbers, seems=st.sampled_from(["expired", "vanished", "both"]), seconds=st.sampled_from([12, 300]))
    def order_seems(self, which: int, seems: str, seconds: int) -> None:
        """Let a list show a running order as ended, or not at all, for a while."""

        def work() -> bool:
            found = self._order_ids()
            if not found:
                return False
            self.stage.market.seem(found[which % len(found)], seems, seconds)
            return True

        self._step("seems", work, which=which, seems=seems, seconds=seconds)

    @step(2, endpoint=st.sampled_from(["my_orders", "wallets", "cancel_order"]))
    def told_to_wait(self, endpoint: str) -> None:
        """Refuse a request and ask for a pause of ten minutes."""
        self._step("wait", lambda: self.stage.market.fault("too_fast", endpoint, seconds=600), endpoint=endpoint)

    @step(which=which_server, factor=st.sampled_from([0.8, 0.97, 1.02, 1.15]))
    def price_moves(self, which: int, factor: float) -> None:
        server_id = self.stage.market.servers[which]
        self._step("price", lambda: self.stage.market.move_price(server_id, factor), server=server_id, factor=factor)

    @step(coin=st.sampled_from([CLORE, BTC]), factor=st.sampled_from(["0.9", "0.99", "1.02", "1.08", "1.2"]))
    def rate_moves(self, coin: str, factor: str) -> None:
        self._step("rate", lambda: self.stage.market.move_rate(coin, Decimal(factor)), coin=coin, factor=factor)

    @step(4, seconds=st.sampled_from([5, 12, 70, 130, 400, 700, 2_000, 4_000, 12_000]))
    def time_passes(self, seconds: int) -> None:
        self._step("advance", lambda: self.stage.advance(seconds), seconds=seconds)

    @step(which=which_server, coin=st.sampled_from([USD, CLORE]), image=strangers)
    def rent_elsewhere(self, which: int, coin: str, image: str) -> None:
        server_id = self.stage.market.servers[which]
        work = lambda: self.stage.market.rent_elsewhere(server_id, coin, image)  # noqa: E731 - named by its use
        self._step("elsewhere", work, server=server_id, coin=coin, image=image)

    @step(which=which_server, factor=st.sampled_from([0.9, 1.5, 2.5]))
    def stranger_bids(self, which: int, factor: float) -> None:
        server_id = self.stage.market.servers[which]

        def work() -> None:
            least = self.stage.market.price(server_id, "spot", USD)
            self.stage.market.outbid(server_id, USD, float(least) * factor)

        self._step("stranger", work, server=server_id, factor=factor)

    @step(who=roles, how=st.sampled_from(["kill", "stop", "leave", "resume", "resume"]))
    def signal(self, who: int, how: str) -> None:
        def work() -> bool:
            client = self.stage.people[who]
            able = {
                "kill": ("idle", "busy", "asking", "stopped"),
                "stop": ("idle", "busy", "asking"),
                "leave": ("idle",),
            }
            if client is None or client.state not in able.get(how, ("stopped",)):
                return False
            getattr(client, how)()
            return True

        self._step("signal", work, who=who, how=how)

    @step()
    def resume_all(self) -> None:
        def work() -> bool:
            found = [one for one in self.stage.clients if one.state == "stopped"]
            for client in found:
                client.resume()
            return bool(found)

        self._step("resume", work)
