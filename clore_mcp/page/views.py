"""What the page shows: typed rows with texts and figures, read through the same code as the tools' answers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from clore_mcp.money import dollars, plain
from clore_mcp.rental.account.account_view import AccountView
from clore_mcp.rental.orders.order_view import OrderView
from clore_mcp.rental.ssh.access import access_of, ssh_config
from clore_mcp.store import Entry, Tx, ledger, orders, quotes
from clore_mcp.text import clean, iso
from clore_mcp.wiring import Services

_LEDGER_ROWS: Final = 200
_CSV_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins with one of these


@dataclass(frozen=True, slots=True)
class OrderPage:
    """One order, and how to connect to it. `secrets` is empty unless they were requested."""

    order: OrderView
    free_cancel_until: str | None
    ssh_config: str
    secrets: Mapping[str, str]


async def order_page(services: Services, order_id: int, *, with_secrets: bool = False) -> OrderPage:
    """Return one order. Raises NotFound and other Failures."""
    found = await services.overview.one(order_id)
    order = found.view
    context = services.context
    account = await context.readings.account()
    secrets: dict[str, str] = {}
    if with_secrets:
        lease = await context.state.read(lambda tx: orders.get(tx, account, order_id))
        if lease is not None:
            secrets = await context.state.read(lambda tx: orders.secrets_of(tx, lease.intent_id))
    config = ""
    row = (await context.readings.orders()).find(order_id) if order.ssh else None
    if row is not None:
        reach = access_of(row, await services.overview.key() if order.made_here else None)
        config = ssh_config(order_id, reach.ssh, services.settings.state_dir) if reach.ssh else ""
    return OrderPage(order, found.free_cancel_until, config, secrets)


@dataclass(frozen=True, slots=True)
class LimitBar:
    """One cap, with the amounts spent and reserved, also as percentages."""

    name: str
    cap: str
    spent: str
    reserved: str
    left: str
    spent_share: float
    reserved_share: float


_LIMITS: Final = {
    "usd_per_hour": "USD per hour, all orders together",
    "usd_per_order": "USD for one order, worst case",
    "usd_per_day": "USD in 24 hours, including reservations",
    "active_orders": "Orders at a time",
}


def limit_bars(account: AccountView) -> list[LimitBar]:
    """Return the account's caps as bars."""
    bars = []
    for name, limit in account.limits.items():
        cap = limit.cap or 1.0
        most, used, kept, left = (_figure(name, usd) for usd in (limit.cap, limit.spent, limit.reserved, limit.left))
        spent = min(100.0, 100 * limit.spent / cap)
        reserved = min(100.0 - spent, 100 * limit.reserved / cap)
        bars.append(LimitBar(_LIMITS.get(name, name), most, used, kept, left, round(spent, 1), round(reserved, 1)))
    return bars


def _figure(name: str, value: float) -> str:
    exact = Decimal(str(value))
    return dollars(exact) if name.startswith("usd") else plain(exact)


class LedgerRow(NamedTuple):
    """One line of the record."""

    at: str
    step: str
    caller: str
    about: str
    what: str


async def steps(services: Services, sought: str, limit: int = _LEDGER_ROWS) -> list[LedgerRow]:
    """Return the newest steps that contain all of the words, newest first."""
    context = services.context
    if not context.state.exists:
        return []
    found = await context.state.read(lambda tx: ledger.read(tx, limit=-1 if sought else limit))
    words = clean(sought, 100).lower().split()
    rows = (_step(entry) for entry in found)
    return [row for row in rows if all(word in " ".join(row).lower() for word in words)][:limit]


def _step(entry: Entry) -> LedgerRow:
    ids = (("order", entry.order_id), ("server", entry.server_id), ("", entry.intent_id), ("", entry.quote_id))
    about = ", ".join(f"{name} {value}".strip() for name, value in ids if value is not None)
    data = {name: value for name, value in (entry.data or {}).items() if name != "question"}
    what = ", ".join(told for name, value in data.items() if (told := _worth(name.replace("_", " "), value)))
    return LedgerRow(
        iso(entry.at), clean(entry.step.replace("_", " "), 40), clean(entry.caller, 80), about, clean(what, 400)
    )


def _worth(name: str, value: Any) -> str:
    """Return a short text for a value of a step. `clore-mcp ledger --json` has all of it."""
    if isinstance(value, list):
        return f"{len(value)} {name}"
    if isinstance(value, dict):
        return f"{name} {usd(value['total_usd'])} in total" if "total_usd" in value else name
    return "" if value in (None, "") else f"{name} {value}"


def as_csv(rows: Sequence[LedgerRow]) -> str:
    """Return the steps as CSV for a spreadsheet, in which no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("at", "step", "by", "about", "what"))
    for row in rows:
        writer.writerow([f"'{cell}" if cell.startswith(_CSV_FORMULA) else cell for cell in row])
    return text.getvalue()


async def frozen(services: Services) -> str:
    """Return who froze spending and since when, or "" if it is not frozen."""
    if not services.context.state.exists:
        return ""
    found = await services.context.state.read(ledger.frozen)
    return f"by {found.by}, since {iso(found.at)}" if found else ""


async def mark(services: Services) -> str:
    """Return a text that changes with the record and the waiting quotes. It sends no request to Clore."""
    if not services.context.state.exists:
        return "none"

    def read(tx: Tx) -> str:
        newest = ledger.read(tx, limit=1)
        return " ".join([str(newest[0].seq if newest else 0), *(one.id + one.state for one in quotes.waiting(tx))])

    return await services.context.state.read(read)


def usd(value: float | Decimal | None) -> str:
    """Return a cost in dollars for a person."""
    return "not known" if value is None else dollars(Decimal(str(value)))


def when(told: str) -> str:
    """Return an answer's time (ISO 8601, UTC) in this machine's time zone."""
    return ago(datetime.fromisoformat(told).timestamp()) if told else ""


def ago(unix_seconds: float) -> str:
    """Return a local time of day, with the date if it is not today."""
    told = datetime.fromtimestamp(unix_seconds).astimezone()
    today = datetime.now().astimezone().date()
    return told.strftime("%H:%M" if told.date() == today else "%d %b %H:%M")
