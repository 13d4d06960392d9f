"""The endpoints' answers to requests that have passed the gate. There are no sockets and rate limits here."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .engine import Engine
from .faults import SSH_FAULTS, Fault, refused
from .intake import (
    ApiRefusal,
    application_error,
    internal_error,
    invalid_input,
    is_positive,
    parse_create,
    whole_number,
)
from .orders import Account
from .views import fees_view, market_view, order_rows, poh_view, wallets_view
from .wire import WireReply, json_reply


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request that the gate has admitted. `fault` may change the way in which it is processed."""

    account: Account
    query: dict[str, str]
    body: Any
    fault: Fault | None


class Api:
    """The marketplace's ten endpoints for renters."""

    def __init__(self, engine: Engine) -> None:
        self._live = engine.live
        self._clock = engine.clock
        self._world = engine.world
        self._listeners = engine.listeners
        self.endpoints: dict[tuple[str, str], Callable[[ApiRequest], WireReply]] = {
            ("GET", "wallets"): self._wallets,
            ("GET", "marketplace"): self._marketplace,
            ("GET", "my_orders"): self._my_orders,
            ("GET", "renter_fees"): lambda _: json_reply({**fees_view(self._live.options), "code": 0}),
            ("GET", "poh_balance"): lambda _: json_reply({**poh_view(self._live.options), "code": 0}),
            ("GET", "spot_marketplace"): self._spot_marketplace,
            ("POST", "create_order"): self._create_order,
            ("POST", "cancel_order"): self._cancel_order,
            ("POST", "cancel_orders"): self._cancel_orders,
            ("POST", "set_spot_price"): self._set_spot_price,
        }

    def process(self, method: str, endpoint: str, call: ApiRequest) -> WireReply:
        self._world.settle(self._clock.now())
        try:
            if method == "POST" and not isinstance(call.body, dict):
                raise invalid_input(self._live.options)
            return self.endpoints[method, endpoint](call)
        except ApiRefusal as refusal:
            return refused(refusal)

    def _wallets(self, call: ApiRequest) -> WireReply:
        rows = wallets_view(call.account, call.fault.kind if call.fault else None)
        return json_reply({"wallets": [*rows, *rows] if self._live.options.repeat_rows else rows, "code": 0})

    def _marketplace(self, call: ApiRequest) -> WireReply:
        tail = b'"my_servers":[],' if call.account.key else b""
        return WireReply(200, b'{"servers":[' + self._world.listing() + b"]," + tail + b'"code":0}', code=0)

    def _my_orders(self, call: ApiRequest) -> WireReply:
        now, options = self._clock.now(), self._live.options
        self._listeners.reserve(self._world.open_orders(), now)  # so that an order never shows another order's port
        completed = call.query.get("return_completed") == "true"
        rows = [
            row
            for order in reversed(self._world.orders.values())
            if order.key == call.account.key and now >= order.visible_at and order.listed_in(completed, now)
            for row in order_rows(order, self._world.servers[order.server_id], now, options, completed)
        ]
        rows = [*rows, *rows] if options.repeat_rows else rows
        return json_reply({"orders": rows, "limit": options.order_limit, "code": 0})

    def _spot_marketplace(self, call: ApiRequest) -> WireReply:
        options = self._live.options
        server = self._world.servers.get(whole_number(call.query.get("market"), options))
        if server is None or not server.listed:
            empty = {"offers": [], "server": {}, "currency_rates_in_usd": options.rates()}
            return json_reply({"market": empty, "exists": False, "code": 0})
        view = market_view(self._world, server, call.account.key, options)
        return json_reply({"market": view, "exists": True, "code": 0})

    def _create_order(self, call: ApiRequest) -> WireReply:
        ask = parse_create(call.body, self._live.options)
        if call.fault and call.fault.kind == "price_moved":
            self._world.move_price(ask.renting_server, call.fault.factor)
        if ask.ampersand and not self._live.options.ampersand_creates:
            raise internal_error()
        now = self._clock.now()
        order = self._world.create(call.account, ask, now)
        match call.fault:
            case Fault(kind="late_visible", seconds=seconds):
                order.visible_at = now + seconds
            case Fault(kind="never_deploys"):
                order.deploy_after = math.inf
            case Fault(kind=kind) if kind in SSH_FAULTS:
                order.ssh = kind
        if ask.ampersand:
            raise internal_error()
        return json_reply({"code": 0})

    def _cancel_order(self, call: ApiRequest) -> WireReply:
        options = self._live.options
        number = whole_number(call.body.get("id"), options)
        issue = call.body.get("issue")
        if issue is not None and not (isinstance(issue, str) and len(issue) <= 2048):
            raise invalid_input(options)
        if self._cancel(call, number) or options.unknown_order == "ok":
            return json_reply({"code": 0})
        if options.unknown_order == "code2":
            raise invalid_input(options)
        raise application_error(self._world.no_order(call.account.key, number))

    def _cancel_orders(self, call: ApiRequest) -> WireReply:
        options = self._live.options
        numbers = call.body.get("order_ids")
        if not isinstance(numbers, list) or len(numbers) > 64:
            raise invalid_input(options)
        ids = [whole_number(number, options) for number in numbers]
        failed = [str(number) for number in ids if not self._cancel(call, number)]
        return json_reply({"failed_to_cancel": failed, "code": 0})

    def _set_spot_price(self, call: ApiRequest) -> WireReply:
        options = self._live.options
        wanted = call.body.get("desired_price")
        if not is_positive(wanted):
            raise invalid_input(options)
        number = whole_number(call.body.get("order_id"), options)
        self._world.set_bid(call.account.key, number, float(wanted), self._clock.now())
        return json_reply({"code": 0})

    def _cancel(self, call: ApiRequest, number: int) -> bool:
        if call.fault and call.fault.kind == "cancel_ignored":
            return True
        return self._world.cancel(call.account.key, number, self._clock.now())
