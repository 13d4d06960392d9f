"""The endpoints' answers to requests that have passed the gate. There are no sockets, faults or rate limits here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .clock import Clock
from .intake import is_positive, order_id, parse_create, server_number
from .listeners import Listeners
from .options import Live
from .orders import Account
from .refusals import ApiRefusal, bare
from .views import fees_view, market_view, order_rows, poh_view, wallets_view
from .wire import WireReply, json_reply
from .world import World


@dataclass(frozen=True, slots=True)
class FaultEffect:
    """What a fault changes in the way a request is processed. The default changes nothing."""

    visible_after: float | None = None
    never_deploys: bool = False
    ssh: str = "ssh_answers"  # or one of faults.SSH_FAULTS
    cancel_ignored: bool = False
    deposits: str = "own"  # "own", "no" or "other": which addresses the wallets show
    price_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request that the gate has admitted."""

    account: Account | None
    query: Mapping[str, str]
    body: Any
    twist: FaultEffect = FaultEffect()


class Api:
    """The marketplace's ten endpoints for renters."""

    def __init__(self, live: Live, clock: Clock, world: World, listeners: Listeners) -> None:
        self._live = live
        self._clock = clock
        self._world = world
        self._listeners = listeners
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
        """Carry out a request and return the reply."""
        self._world.settle(self._clock.now())
        try:
            return self.endpoints[method, endpoint](call)
        except ApiRefusal as refused:
            return json_reply(refused.body, refused.status)

    def _wallets(self, call: ApiRequest) -> WireReply:
        rows = wallets_view(_account(call), call.twist.deposits)
        return json_reply({"wallets": [*rows, *rows] if self._live.options.repeat_rows else rows, "code": 0})

    def _marketplace(self, call: ApiRequest) -> WireReply:
        tail = b"" if call.account is None else b'"my_servers":[],'
        return WireReply(200, b'{"servers":[' + self._world.listing() + b"]," + tail + b'"code":0}', code=0)

    def _my_orders(self, call: ApiRequest) -> WireReply:
        now, options = self._clock.now(), self._live.options
        self._listeners.reserve(self._world.open_orders(), now)  # so that an order never shows another order's port
        completed = call.query.get("return_completed") == "true"
        orders = self._world.orders_of(_account(call).key, completed=True)
        shown = [o for o in orders if now >= o.visible_at and o.listed_in(completed, now)]
        rows = [
            row
            for o in reversed(shown)
            for row in order_rows(o, self._world.servers[o.server_id], now, options, completed=completed)
        ]
        rows = [*rows, *rows] if options.repeat_rows else rows
        return json_reply({"orders": rows, "limit": options.order_limit, "code": 0})

    def _spot_marketplace(self, call: ApiRequest) -> WireReply:
        market = server_number(call.query.get("market", ""), self._live.options)
        server = self._world.servers.get(market)
        if server is None or not server.listed:
            empty = {"offers": [], "server": {}, "currency_rates_in_usd": self._live.options.rates()}
            return json_reply({"market": empty, "exists": False, "code": 0})
        view = market_view(self._world, server, _account(call).key, self._live.options)
        return json_reply({"market": view, "exists": True, "code": 0})

    def _create_order(self, call: ApiRequest) -> WireReply:
        ask = parse_create(call.body, self._live.options)
        if call.twist.price_factor != 1.0:
            self._world.move_price(ask.server_id, call.twist.price_factor)
        if ask.ampersand and not self._live.options.ampersand_creates:
            raise bare(1, 500)
        now = self._clock.now()
        order = self._world.create(_account(call), ask, now)
        if call.twist.visible_after is not None:
            order.visible_at = now + call.twist.visible_after
        if call.twist.never_deploys:
            order.deploy_after = float("inf")
        order.ssh = call.twist.ssh
        if ask.ampersand:
            raise bare(1, 500)
        return json_reply({"code": 0})

    def _cancel_order(self, call: ApiRequest) -> WireReply:
        options = self._live.options
        body = self._object(call)
        number = order_id(body.get("id"), options)
        issue = body.get("issue")
        if issue is not None and not (isinstance(issue, str) and len(issue) <= 2048):
            raise bare(2, options.bad_input_status)
        if self._cancel(call, number) or options.unknown_order == "ok":
            return json_reply({"code": 0})
        if options.unknown_order == "code2":
            raise bare(2, options.bad_input_status)
        return json_reply({"error": self._world.no_order(_account(call).key, number), "code": 6})

    def _cancel_orders(self, call: ApiRequest) -> WireReply:
        options = self._live.options
        numbers = self._object(call).get("order_ids")
        if not isinstance(numbers, list) or len(numbers) > 64:
            raise bare(2, options.bad_input_status)
        ids = [order_id(number, options) for number in numbers]
        failed = [str(number) for number in ids if not self._cancel(call, number)]
        return json_reply({"failed_to_cancel": failed, "code": 0})

    def _set_spot_price(self, call: ApiRequest) -> WireReply:
        options = self._live.options
        body = self._object(call)
        wanted = body.get("desired_price")
        if not is_positive(wanted):
            raise bare(2, options.bad_input_status)
        number = order_id(body.get("order_id"), options)
        self._world.set_bid(_account(call).key, number, float(wanted), self._clock.now())
        return json_reply({"code": 0})

    def _cancel(self, call: ApiRequest, number: int) -> bool:
        key = _account(call).key
        if call.twist.cancel_ignored:
            return True
        return self._world.cancel(key, number, self._clock.now())

    def _object(self, call: ApiRequest) -> dict[str, Any]:
        if not isinstance(call.body, dict):
            raise bare(2, self._live.options.bad_input_status)
        return call.body


def _account(call: ApiRequest) -> Account:
    if call.account is None:
        raise bare(3, 401)
    return call.account
