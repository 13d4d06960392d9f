"""The state of the market: who rents what. It knows no HTTP, and its methods take the time as an argument."""

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

from .billing import Meter
from .catalogue import Row, catalogue, encode, hostile_rows
from .images import inside
from .intake import OrderWish, is_positive
from .options import Live
from .orders import Account, Server, SimulatedOrder, wallets_of
from .refusals import already_rented, application_error, bare, currency_not_allowed, spot_order_held
from .spot import SimulatedBid, ranked, seeded_rivals, step_error

LONGEST_HOURS = 3_000
"""The longest rental if a host's row has none."""

LEAST_USD_PER_DAY = 0.1


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
        made = catalogue(options)
        self._encoded = dict(made.encoded)
        self._listing: bytes | None = None
        self.meter = Meter(live, self._after_end)
        self._populate(made.rows)

    # Time

    def settle(self, now: float) -> None:
        """Do everything that is due by `now`."""
        self.meter.run_to(self.open_orders(), now)

    # Listing

    def listing(self) -> bytes:
        """Return the marketplace's rows as JSON, without the brackets. Only rows that changed are encoded again."""
        if self._listing is None:
            rows = [self._encode(s) for s in self.servers.values() if s.listed]
            self._listing = b",".join(rows + [json.dumps(row).encode() for row in self.stray_rows])
        return self._listing

    def own_row(self, server: Server) -> Row:
        """Return a copy of the server's row for changes, because other markets with the same seed share the
        original."""
        server.row = copy.deepcopy(server.row)
        return server.row

    def touch(self, server_id: int) -> None:
        """Note that the server's row changed, so that the next listing shows it."""
        self._encoded.pop(server_id, None)
        self._listing = None

    def add_row(self, row: object) -> int | None:
        """List a row, valid or not. Returns its id, or None if it has none. A row without an id can't be rented."""
        server_id = row.get("id") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(server_id, int) or isinstance(server_id, bool):
            self.stray_rows.append(row)
            self._listing = None
            return None
        self.servers[server_id] = Server(server_id, row, elsewhere=row.get("rented") is True)
        self.servers = dict(sorted(self.servers.items(), reverse=True))
        self.touch(server_id)
        return server_id

    def is_rented(self, server: Server) -> bool:
        """Return whether it is rented on demand, here or elsewhere. A spot order doesn't count, because it can be
        displaced."""
        return server.elsewhere or any(not o.spot for o in self.open_on(server.id))

    def price(self, server: Server, spot: bool, currency: str) -> float | None:
        """Return the listed price a day, or None if it is not a valid price."""
        prices = server.row.get("price")
        coins = prices.get("spot" if spot else "on_demand") if isinstance(prices, dict) else None
        value = coins.get(currency) if isinstance(coins, dict) else None
        return value if is_positive(value) else None

    def move_price(self, server_id: int, factor: float) -> None:
        """Multiply every price of a server by a factor. Running orders keep their prices."""
        server = self.servers.get(server_id)
        prices = server.row.get("price") if server is not None else None
        if server is None or not isinstance(prices, dict) or factor == 1.0:
            return
        prices = self.own_row(server)["price"]
        for block in ("on_demand", "spot", "usd"):
            coins: dict[str, Any] = prices.get(block) or {}
            for name, value in coins.items():
                if isinstance(value, int | float) and value:
                    coins[name] = float(f"{value * factor:.8f}")
        self.touch(server_id)

    # Orders

    def open_on(self, server_id: int) -> list[SimulatedOrder]:
        """Return the orders of all accounts on a server that have not ended."""
        return [o for o in self._open.values() if o.server_id == server_id]

    def open_orders(self) -> list[SimulatedOrder]:
        """Return the orders of all accounts that have not ended."""
        return list(self._open.values())

    def orders_of(self, key: str, completed: bool) -> list[SimulatedOrder]:
        """Return an account's orders, oldest first: those that have not ended, or all of them."""
        chosen = self.orders.values() if completed else self._open.values()
        return [o for o in chosen if o.key == key]

    def create(self, account: Account, ask: OrderWish, now: float) -> SimulatedOrder:
        """Make an order, or raise the same refusal as the real market."""
        server = self.servers.get(ask.server_id)
        if server is None or not server.listed:
            raise application_error("server-dont-exist")
        if not server.online:
            raise application_error("server-offline")
        if server.row.get("owner") == self._live.options.user_id:
            raise application_error("cant_rent_from_yourself")
        if server.row.get("gigaspot"):
            raise application_error("machine-is-on-gigaspot")
        price = self.price(server, ask.spot, ask.currency)
        accepted = server.row.get("allowed_coins")
        if not isinstance(accepted, list) or ask.currency not in accepted or price is None:
            raise currency_not_allowed()
        self._check_free(account, server, ask)
        self._check_price(ask, price)
        self._check_account(account, ask, price)
        order = self._order(account, server, ask, ask.bid if ask.spot else price, now)
        self.orders[order.id] = self._open[order.id] = order
        if not ask.spot:
            order.begin_stretch(order.ct)
        self.resolve(server.id, now)
        return order

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

    def set_bid(self, key: str, order_id: int, wanted: float, now: float) -> None:
        """Change a spot order's bid, or raise the refusal."""
        options = self._live.options
        order = self._open.get(order_id)
        if order is None or order.key != key:
            raise application_error(self.no_order(key, order_id))
        if not order.spot:
            raise application_error(options.unknown_order_error)
        if wanted * options.rates()[order.currency] < LEAST_USD_PER_DAY:
            raise application_error("amount_too_low")
        minimum = self.price(self.servers[order.server_id], True, order.currency)
        if minimum is not None and wanted < minimum:
            raise application_error("too_low_price", min_price=minimum)
        wait = 0.0 if order.lowered_at is None else order.lowered_at + options.lowering_every - now
        error = step_error(order.price, wanted, options.max_step_percent, wait)
        if error is not None:
            raise application_error(str(error.pop("error")), **error)
        if wanted < order.price:
            order.lowered_at = now
        if wanted != order.price:
            self.meter.reprice(order, wanted, now)
        self.resolve(order.server_id, now)

    # Spot

    def bids(self, server: Server) -> list[SimulatedBid]:
        """Return all bids on a server, the winner first."""
        own = [SimulatedBid(o.id, o.price, o.currency, o.ct, o.id) for o in self.open_on(server.id) if o.spot]
        return ranked([*server.rivals, *own], self._live.options.rates())

    def winner(self, server: Server) -> SimulatedBid | None:
        """Return the bid that has the server, or None while it is rented on demand."""
        bids = self.bids(server)
        return bids[0] if bids and not self.is_rented(server) else None

    def add_rival(self, server: Server, bid: float, currency: str, now: float) -> SimulatedBid:
        """Add a stranger's bid and return it."""
        self._next_offer += 1
        rival = SimulatedBid(self._next_offer, bid, currency, now)
        server.rivals.append(rival)
        self.resolve(server.id, now)
        return rival

    def resolve(self, server_id: int, now: float) -> None:
        """Give the server to the winning bid, and take it from the others."""
        server = self.servers[server_id]
        self.touch(server_id)
        best = self.winner(server)
        for order in [o for o in self.open_on(server_id) if o.spot]:
            wins = best is not None and best.order_id == order.id
            if wins and not order.running:
                order.begin_stretch(now)
            elif not wins and order.running:
                self._lose(order, now)

    # Inside

    def _lose(self, order: SimulatedOrder, now: float) -> None:
        if self._live.options.outbid == "vanishes":
            self.meter.end(order, now, "outbid")
        else:
            self.meter.pause(order, now)
            order.up_since = None
            order.public_ports.clear()

    def _check_free(self, account: Account, server: Server, ask: OrderWish) -> None:
        mine = [order for order in self.open_on(server.id) if order.key == account.key]
        if ask.spot and any(order.spot for order in mine):
            raise spot_order_held()
        if mine or (not ask.spot and self.is_rented(server)):
            raise already_rented()

    def _check_price(self, ask: OrderWish, price: float) -> None:
        if ask.spot:
            if ask.bid < price:
                raise application_error("too_low_price", min_price=price)
            return
        mode = self._live.options.required_price
        if ask.required_price is None or mode == "ignored" or abs(price - ask.required_price) <= 1e-9:
            return
        if mode == "code1":
            raise bare(1, 500)
        if mode == "equal" or price > ask.required_price:
            raise application_error(self._live.options.price_error)

    def _check_account(self, account: Account, ask: OrderWish, price: float) -> None:
        options = self._live.options
        if len(self.orders_of(account.key, completed=False)) >= options.order_limit:
            raise application_error(options.order_limit_error)
        hourly = (ask.bid if ask.spot else price) / 24 * (1 + self.fee_rate(ask.spot))
        balance = account.wallets[ask.currency].balance or 0.0
        short = balance * options.rates()[ask.currency] < options.minimum_balance_usd
        if short or (options.on_empty == "end" and (balance < hourly * options.funding_hours or balance <= 0)):
            raise application_error("not_enough_balance")

    def fee_rate(self, spot: bool) -> float:
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
            mrl_s=(mrl if is_positive(mrl) else LONGEST_HOURS) * 3600,
            fee_rate=self.fee_rate(ask.spot),
            creation_fee=float(f"{options.creation_fee_usd / options.rates()[ask.currency]:.8f}"),
            creation_fee_after=options.creation_fee_after,
            wallet=account.wallets[ask.currency],
            ports=dict(ask.ports),
            visible_at=now + options.visible_after,
            deploy_after=options.deploy_after,
            http_pub="".join(self._rng.choices("abcdefghijkmnpqrstuvwxyz23456789", k=13)),
            inside=inside(ask, server.row, options),
        )

    def _after_end(self, order: SimulatedOrder, at: float) -> None:
        self._open.pop(order.id, None)
        self.resolve(order.server_id, at)

    def _encode(self, server: Server) -> bytes:
        if server.id not in self._encoded:
            rented = server.row.get("rented")
            row = {**server.row, "rented": self.is_rented(server)} if isinstance(rented, bool) else server.row
            self._encoded[server.id] = encode(row)
        return self._encoded[server.id]

    def _populate(self, rows: Sequence[Row]) -> None:
        rates = self._live.options.rates()
        for row in rows:
            server = Server(row["id"], row, elsewhere=row["rented"])
            server.rivals = seeded_rivals(self._rng, row, rates, self._next_offer)
            self._next_offer += len(server.rivals)
            self.servers[server.id] = server
        if self._live.options.hostile and rows:
            free = next((row for row in rows if not row["rented"] and len(row["allowed_coins"]) == 3), rows[0])
            for bad in hostile_rows(free, rows[0]["id"] + 1):
                self.add_row(bad)
