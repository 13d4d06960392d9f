"""The state of the market: who rents what. It knows no HTTP, and its methods take the time as an argument."""

import copy
import json
import random
from typing import Any

from .catalogue import Row, hostile_rows, seeded_rivals, shared_rows
from .images import inside
from .intake import OrderWish, already_rented, application_error, internal_error, is_positive
from .options import Live
from .orders import Account, Meter, Server, SimulatedBid, SimulatedOrder, wallets_of

_LONGEST_HOURS = 3_000  # the longest rental if a host's row has none
_LEAST_USD_PER_DAY = 0.1


class World:
    """Servers, accounts and orders."""

    def __init__(self, live: Live) -> None:
        self._live = live
        options = live.options
        self._rng = random.Random(f"{options.seed} people")
        self.servers: dict[int, Server] = {}
        self.stray_rows: list[Any] = []
        self.orders: dict[int, SimulatedOrder] = {}
        self.accounts = {key: Account(key, wallets_of(key, options)) for key in options.keys}
        self._open: dict[int, SimulatedOrder] = {}
        self._next_order = 2_090_000 + self._rng.randrange(1_000)
        self._next_offer = 700_000
        self._encoded: dict[int, bytes] = {}
        self.meter = Meter(live, self._after_end)
        rows = shared_rows(options.seed, options.servers, options.btc_usd, options.clore_usd)
        for row in rows:
            server = Server(row["id"], row, elsewhere=row["rented"])
            server.rivals = seeded_rivals(self._rng, row, options.rates(), self._next_offer)
            self._next_offer += len(server.rivals)
            self.servers[server.id] = server
        if options.hostile and rows:
            free = next((row for row in rows if not row["rented"] and len(row["allowed_coins"]) == 3), rows[0])
            for bad in hostile_rows(free, rows[0]["id"] + 1):
                self.add_row(bad)

    def settle(self, now: float) -> None:
        """Do everything that is due by `now`."""
        self.meter.run_to(self.open_orders(), now)

    # Listing

    def listing(self) -> bytes:
        """Return the marketplace's rows as JSON, without the brackets."""
        rows = [self._encode(server) for server in self.servers.values() if server.listed]
        return b",".join(rows + [json.dumps(row).encode() for row in self.stray_rows])

    def _encode(self, server: Server) -> bytes:
        """Return a row as the listing has it. Only rows that changed are encoded again."""
        if server.id not in self._encoded:
            rented = server.row.get("rented")
            row = {**server.row, "rented": self.is_rented(server)} if isinstance(rented, bool) else server.row
            self._encoded[server.id] = json.dumps(row, separators=(",", ":")).encode()
        return self._encoded[server.id]

    def own_row(self, server: Server) -> Row:
        """Copy the server's row, because other markets with the same seed share it, and return it for changes."""
        self._encoded.pop(server.id, None)
        server.row = copy.deepcopy(server.row)
        return server.row

    def add_row(self, row: object) -> int | None:
        """List a row, valid or not. Returns its id, or None if it has none. A row without an id can't be rented."""
        server_id = row.get("id") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(server_id, int) or isinstance(server_id, bool):
            self.stray_rows.append(row)
            return None
        self.servers[server_id] = Server(server_id, row, elsewhere=row.get("rented") is True)
        self.servers = dict(sorted(self.servers.items(), reverse=True))
        self._encoded.pop(server_id, None)
        return server_id

    def is_rented(self, server: Server) -> bool:
        """Return whether it is rented on demand, here or elsewhere. A spot order can be displaced and doesn't count."""
        return server.elsewhere or any(not o.spot for o in self._open_on(server.id))

    def price(self, server: Server, spot: bool, currency: str) -> float | None:
        """Return the listed price a day, or None if it is not a valid price."""
        prices = server.row.get("price")
        coins = prices.get("spot" if spot else "on_demand") if isinstance(prices, dict) else None
        value = coins.get(currency) if isinstance(coins, dict) else None
        return value if is_positive(value) else None

    def move_price(self, server_id: int, factor: float) -> None:
        """Multiply every price of a server by a factor. Running orders keep their prices."""
        server = self.servers.get(server_id)
        if server is None or not isinstance(server.row.get("price"), dict) or factor == 1.0:
            return
        prices = self.own_row(server)["price"]
        for block in ("on_demand", "spot", "usd"):
            coins: dict[str, Any] = prices.get(block) or {}
            for name, value in coins.items():
                if isinstance(value, int | float) and value:
                    coins[name] = float(f"{value * factor:.8f}")

    # Orders

    def open_orders(self) -> list[SimulatedOrder]:
        return list(self._open.values())

    def _open_on(self, server_id: int) -> list[SimulatedOrder]:
        return [o for o in self._open.values() if o.server_id == server_id]

    def create(self, account: Account, ask: OrderWish, now: float) -> SimulatedOrder:
        """Make an order, or raise the same refusal as the real market."""
        server = self.servers.get(ask.renting_server)
        if server is None or not server.listed:
            raise application_error("server-dont-exist")
        if not server.online:
            raise application_error("server-offline")
        if server.row.get("owner") == self._live.options.user_id:
            raise application_error("cant_rent_from_yourself")
        if server.row.get("gigaspot"):
            raise application_error("machine-is-on-gigaspot")
        listed = self.price(server, ask.spot, ask.currency)
        accepted = server.row.get("allowed_coins")
        if not isinstance(accepted, list) or ask.currency not in accepted or listed is None:
            raise application_error("currency-not-allowed", status=500)  # the only code 6 known to have this status
        self._check_free(account, server, ask)
        self._check_price(ask, listed)
        price = float(ask.spotprice) if ask.spot else listed
        self._check_account(account, ask, price)
        order = self._order(account, server, ask, price, now)
        self.orders[order.id] = self._open[order.id] = order
        if not ask.spot:
            order.begin_stretch(order.ct)
        self.resolve(server.id, now)
        return order

    def _check_free(self, account: Account, server: Server, ask: OrderWish) -> None:
        mine = [order for order in self._open_on(server.id) if order.key == account.key]
        if ask.spot and any(order.spot for order in mine):
            raise application_error("you_already_have_spot_order")
        if mine or (not ask.spot and self.is_rented(server)):
            raise already_rented()

    def _check_price(self, ask: OrderWish, listed: float) -> None:
        if ask.spot:
            if ask.spotprice < listed:
                raise application_error("too_low_price", min_price=listed)
            return
        mode = self._live.options.required_price
        if ask.required_price is None or mode == "ignored" or abs(listed - ask.required_price) <= 1e-9:
            return
        if mode == "code1":
            raise internal_error()
        if mode == "equal" or listed > ask.required_price:
            raise application_error(self._live.options.price_error)

    def _check_account(self, account: Account, ask: OrderWish, price: float) -> None:
        options = self._live.options
        if sum(order.key == account.key for order in self._open.values()) >= options.order_limit:
            raise application_error(options.order_limit_error)
        hourly = price / 24 * (1 + self._fee_rate(ask.spot))
        funds = account.wallets[ask.currency].funds
        short = funds * options.rates()[ask.currency] < options.minimum_balance_usd
        if short or (options.on_empty == "end" and (funds < hourly * options.funding_hours or funds <= 0)):
            raise application_error("not_enough_balance")

    def _fee_rate(self, spot: bool) -> float:
        """Return the renter's fee as a fraction, after the Proof-of-Holding discount."""
        options = self._live.options
        discount = round(min(options.poh / 2_000_000, 1) * 50) / 100
        return (options.fee_spot if spot else options.fee_on_demand) / 100 * (1 - discount)

    def _order(self, account: Account, server: Server, ask: OrderWish, price: float, now: float) -> SimulatedOrder:
        options = self._live.options
        self._next_order += self._rng.randrange(1, 40)
        mrl = server.row.get("mrl")
        return SimulatedOrder(
            id=self._next_order,
            key=account.key,
            server_id=server.id,
            image=ask.image,
            currency=ask.currency,
            price=price,
            spot=ask.spot,
            ct=int(now),
            mrl_s=(mrl if is_positive(mrl) else _LONGEST_HOURS) * 3600,
            fee_rate=self._fee_rate(ask.spot),
            creation_fee=options.creation_fee(ask.currency),
            creation_fee_after=options.creation_fee_after,
            wallet=account.wallets[ask.currency],
            ports=dict(ask.ports or {}),
            visible_at=now + options.visible_after,
            deploy_after=options.deploy_after,
            http_pub="".join(self._rng.choices("abcdefghijkmnpqrstuvwxyz23456789", k=13)),
            inside=inside(ask, server.row, options),
        )

    def cancel(self, key: str, order_id: int, now: float) -> bool:
        """End an account's order. Returns False if it has no running order with that id."""
        order = self._open.get(order_id) or next((o for o in self._open.values() if o.row.get("id") == order_id), None)
        if order is None or order.key != key:
            return False
        self.meter.end(order, now, "cancelled")
        return True

    def no_order(self, key: str, order_id: int) -> str:
        """Return why an account has no running order with that id, in the API's words."""
        order = self.orders.get(order_id)
        if order is None:
            return self._live.options.unknown_order_error
        return "order_not_active" if order.key == key else "you_dont_own_this_order"

    def _after_end(self, order: SimulatedOrder, at: float) -> None:
        self._open.pop(order.id, None)
        self.resolve(order.server_id, at)

    # Spot

    def set_bid(self, key: str, order_id: int, wanted: float, now: float) -> None:
        """Change a spot order's bid, or raise the refusal."""
        options = self._live.options
        order = self._open.get(order_id)
        if order is None or order.key != key:
            raise application_error(self.no_order(key, order_id))
        if not order.spot:
            raise application_error(options.unknown_order_error)
        if wanted * options.rates()[order.currency] < _LEAST_USD_PER_DAY:
            raise application_error("amount_too_low")
        minimum = self.price(self.servers[order.server_id], True, order.currency)
        if minimum is not None and wanted < minimum:
            raise application_error("too_low_price", min_price=minimum)
        if wanted < order.price:
            self._check_lowering(order, wanted, now)
            order.lowered_at = now
        if wanted != order.price:
            self.meter.reprice(order, wanted, now)
        self.resolve(order.server_id, now)

    def _check_lowering(self, order: SimulatedOrder, wanted: float, now: float) -> None:
        """The largest step is a percentage of the present bid, because the real formula is unknown."""
        options = self._live.options
        wait = 0.0 if order.lowered_at is None else order.lowered_at + options.lowering_every - now
        if wait > 0:
            raise application_error("can_lower_every_600_seconds", time_to_lowering=wait)
        max_step = order.price * options.max_step_percent / 100
        if order.price - wanted > max_step * (1 + 1e-9):
            raise application_error("exceeded_max_step", max_step=max_step)

    def bids(self, server: Server) -> list[SimulatedBid]:
        """Return all bids on a server, the highest in USD first. Of equal bids, the earlier one comes first."""
        rates = self._live.options.rates()
        own = [SimulatedBid(o.id, o.price, o.currency, o.ct, o.id) for o in self._open_on(server.id) if o.spot]
        return sorted([*server.rivals, *own], key=lambda b: (-b.bid * rates[b.currency], b.placed_at, b.offer_id))

    def winner(self, server: Server) -> SimulatedBid | None:
        """Return the bid that has the server, or None while it is rented on demand."""
        bids = self.bids(server)
        return bids[0] if bids and not self.is_rented(server) else None

    def add_rival(self, server: Server, bid: float, currency: str, now: float) -> SimulatedBid:
        self._next_offer += 1
        rival = SimulatedBid(self._next_offer, bid, currency, now)
        server.rivals.append(rival)
        self.resolve(server.id, now)
        return rival

    def resolve(self, server_id: int, now: float) -> None:
        """Give the server to the winning bid, and take it from the others."""
        server = self.servers[server_id]
        self._encoded.pop(server_id, None)
        best = self.winner(server)
        for order in [o for o in self._open_on(server_id) if o.spot]:
            wins = best is not None and best.order_id == order.id
            if wins and not order.running:
                order.begin_stretch(now)
            elif not wins and order.running and self._live.options.outbid == "vanishes":
                self.meter.end(order, now, "outbid")
            elif not wins and order.running:
                self.meter.pause(order, now)
                order.up_since = None
                order.public_ports.clear()
