"""Orders, wallets, bids and fees as the API shows them, with exactly the keys that the real one sends."""

from typing import Any

from .intake import COINS
from .options import Options
from .orders import Account, Server, SimulatedOrder
from .world import World

_COPIED = ("rating", "reliability", "owner", "cuda_version", "gpu_array")


def order_rows(
    order: SimulatedOrder, server: Server, now: float, options: Options, completed: bool
) -> list[dict[str, Any]]:
    """Return an order's row in my_orders, and its twin's if it has one. `completed`: ended orders are listed too."""
    expired = order.seems_expired(completed, now)
    specs = server.row.get("specs")
    ct = int(order.ct + options.ct_off)
    cts = {"seconds": ct, "milliseconds": ct * 1_000, "text": "just now", "null": None, "negative": -ct}
    row: dict[str, Any] = {
        "id": order.id,
        "creation_fee": order.creation_fee,
        "price": order.price,
        "mrl": int(order.mrl_s),
        "image": order.image,
        "currency": order.currency,
        "spend": order.spend,
        "ct": cts[options.ct],
        "specs": {k: v for k, v in specs.items() if k != "pl"} if isinstance(specs, dict) else specs,
        "si": order.server_id,
        "mon_container": 2 if (order.ended_at or now) >= order.deployed_at() else 0,
        "online": server.online,
        **({"spot": True} if order.spot else {}),
        **({"tcp_ports": []} if expired else _endpoints(order, server, now, options)),
        **{name: server.row[name] for name in _COPIED if name in server.row},
    }
    if expired:
        gpus = len(server.row.get("gpu_array") or [0])
        ended = int(now if order.ended_at is None else order.ended_at)
        row |= {"expired": True, "order_end": ended, "gpu_count": gpus, "total_gpus": gpus}
    row |= order.row
    return [row] if order.twin is None else [row, row | order.twin]


def _endpoints(order: SimulatedOrder, server: Server, now: float, options: Options) -> dict[str, Any]:
    if order.ended_at is not None:
        return {"tcp_ports": []}
    if not order.has_endpoints(now, options):
        return {}
    if order.server_id in options.hostile_endpoints:
        return {"pub_cluster": ["n1.x.invalid; rm -rf ~"], "tcp_ports": ["22:99999", "22:-oProxyCommand=x"]}
    country = _country_of(server)
    http = next((port for port, kind in order.ports.items() if kind == "http"), None)
    found = options.ssh_listener and order.ssh != "ssh_name_unknown"
    shown: dict[str, Any] = {
        "pub_cluster": [options.ssh_host if found else f"n1.{country}.sandbox.invalid"],
        "tcp_ports": [f"{inner}:{order.public_port(inner)}" for inner, kind in order.ports.items() if kind == "tcp"],
    }
    if http is not None:
        shown |= {"http_port": http, "http_pub": f"{order.http_pub}.{country}.sandbox.invalid"}
    return shown


def _country_of(server: Server) -> str:
    """Return the country for a host name, or "xx" if a hostile row has no valid one."""
    specs = server.row.get("specs")
    net = specs.get("net") if isinstance(specs, dict) else None
    code = net.get("cc") if isinstance(net, dict) else None
    return code.lower() if isinstance(code, str) and len(code) == 2 and code.isalpha() else "xx"


def wallets_view(account: Account, fault_kind: str | None) -> list[dict[str, Any]]:
    """Return the rows of GET /wallets. Two kinds of fault replace the account's own addresses."""
    return [
        {
            "name": w.name,
            "deposit": {"no_deposits": None, "other_deposits": f"sandboxnobody{w.name}"}.get(
                fault_kind or "", w.deposit
            ),
            "balance": w.balance,
            "withdrawal_fee": w.withdrawal_fee,
        }
        for w in account.wallets.values()
    ]


def market_view(world: World, server: Server, key: str, options: Options) -> dict[str, Any]:
    """Return one server's spot market: every bid, with the winner marked active."""
    winner = world.winner(server)
    prices = server.row.get("price")
    minimum = prices.get("spot") if isinstance(prices, dict) else None
    offers = [
        {
            "offer_id": bid.offer_id,
            "bid": bid.bid,
            "active": winner is not None and winner.offer_id == bid.offer_id,
            "my": bid.order_id is not None and world.orders[bid.order_id].key == key,
            "currency": bid.currency,
        }
        for bid in world.bids(server)
    ]
    about = {"min_pricing": minimum, "mrl": server.row.get("mrl"), "visibility": "public", "online": server.online}
    return {"offers": offers, "server": about, "currency_rates_in_usd": options.rates()}


def fees_view(options: Options) -> dict[str, Any]:
    """Return the body of GET /renter_fees: percentages before the Proof-of-Holding discount."""
    creation = {coin: options.creation_fee(coin) for coin in COINS}
    return {
        "renter_fees": {
            "on_demand": {"base": dict.fromkeys(COINS, options.fee_on_demand)},
            "spot": {"base": dict.fromkeys(COINS, options.fee_spot)},
        },
        "poh_config": {"max_reduction_percent": 50, "max_poh_amount": 2_000_000},
        "creation_fees": {"on_demand": creation, "spot": creation},
        "poh_balance": options.poh,
    }


def poh_view(options: Options) -> dict[str, Any]:
    """Return the body of GET /poh_balance."""
    offers = {
        "rented_amount": 0,
        "rented_on_marketplace_amount": 0,
        "rented_finished_amount": 0,
        "leased_amount": 0,
        "leased_finished_amount": 0,
    }
    balance = {"total": options.poh, "free_amount": options.poh, "reward_amount": 0, "offers": offers}
    return {"items": [], "balance": balance, "count": 0}
