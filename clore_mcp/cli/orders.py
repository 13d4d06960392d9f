"""`clore-mcp orders`: list what runs, what it costs and how to connect, and warn of unknown outcomes.

`connect ORDER_ID` also shows the token made for one order, and only in a terminal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from clore_mcp.cli.context import command_prefix, opened
from clore_mcp.cli.terminal import loud, say, span, table, usd
from clore_mcp.errors import Failure, NotFound
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.orders.order_view import OpenCreate, OrderView
from clore_mcp.rental.ssh.access import Access, access_of, ssh_config
from clore_mcp.store import Tx, orders
from clore_mcp.wiring import Services


@dataclass(frozen=True, slots=True)
class OrdersSeen:
    """The orders at one moment. `told_only` holds the orders with `on_end` "notify", which no process cancels."""

    views: Sequence[OrderView]
    unsettled: Sequence[OpenCreate]
    usd_per_hour: float
    api_now: float
    told_only: frozenset[int]
    enforced_by: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="include ended orders")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Show the orders and warn of unknown outcomes."""
    with opened(arguments) as (services, runner):
        seen = runner.run(look(services, include_ended=arguments.all))
    if arguments.json:
        told = {
            "orders": [view.as_json() for view in seen.views],
            "total_usd_per_hour": seen.usd_per_hour,
            "unsettled": [asdict(one) for one in seen.unsettled],
            "enforced_by": seen.enforced_by,
        }
        print(json.dumps(told, indent=2))
        return 0
    if seen.views:
        _show(seen)
        running = sum(not view.over for view in seen.views)
        unknown = sum(not view.over and view.usd_per_hour is None for view in seen.views)
        beside = f", and {unknown} whose cost is unknown" if unknown else ""
        say(f"{running} running, {usd(seen.usd_per_hour)} per hour in total{beside}.")
    else:
        say("No orders. Nothing is billed.")
    warn(seen, command_prefix(arguments))
    return 0


async def look(services: Services, *, include_ended: bool = False, urgent: bool = False) -> OrdersSeen:
    """Return the orders now, settled and reconciled as far as possible. `urgent`: see `Overview.orders`."""
    context = services.context
    found = await services.overview.orders(include_ended=include_ended, urgent=urgent)
    account = await context.readings.account()
    leases = await context.state.read(lambda tx: orders.active(tx, account))
    return OrdersSeen(
        views=found.orders,
        unsettled=found.unsettled,
        usd_per_hour=found.usd_per_hour,
        api_now=context.readings.api_now(),
        told_only=frozenset(lease.order_id for lease in leases if lease.on_end == "notify"),
        enforced_by=await context.enforced_by(),
    )


def _show(seen: OrdersSeen) -> None:
    """Show a table of the orders, and below it the lines to connect to them."""
    rows = []
    for view in seen.views:
        order_id = f"{view.order_id}{'' if view.made_here else '*'}"
        cost, spent = usd(view.usd_per_hour), usd(view.spent_usd)
        rows.append((order_id, view.hardware, view.status, cost, spent, _end(view, seen)))
    table(("order", "GPU", "status", "$/h", "spent", "ends in"), rows, right=("$/h", "spent"), wraps="GPU")
    if any(not view.made_here for view in seen.views):
        say("* not made here: clore-mcp ends it only if an end is shown")
    for view in seen.views:
        for way in (view.ssh and view.ssh.command, view.http_url, view.warning):
            if way:
                print(f"{view.order_id}: {way}")


def warn(seen: OrdersSeen, prefix: str) -> None:
    """Warn of orders that may cost money unnoticed."""
    for one in seen.unsettled:
        if one.state == "uncertain":
            loud(settle_line(one.server_id, one.intent_id, prefix))
        else:
            loud(f"A rental of server {one.server_id} is on its way since {one.since}. Check again in a minute.")
    leased = [view for view in seen.views if view.ends_at is not None]
    if seen.enforced_by is None and any(view.order_id not in seen.told_only for view in leased):
        loud("No process ends these orders now. Run `clore-mcp watchdog`, or cancel them in time.")


def settle_line(server_id: int, intent_id: str, prefix: str) -> str:
    """Return what to do about a rental whose outcome is unknown."""
    return (
        f"An order on server {server_id} may be running and billing, although Clore does not show it. Check clore.ai,"
        f" then run: {prefix} settle {intent_id} --order ID (or --none)"
    )


def _end(view: OrderView, seen: OrdersSeen) -> str:
    if view.over:
        return "-"
    if view.ends_at is None:
        return "open"
    left = datetime.fromisoformat(view.ends_at).timestamp() - seen.api_now
    if left <= 0:
        return "overdue"
    return f"{span(left)}, not cancelled" if view.order_id in seen.told_only else span(left)


def add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("order_id", metavar="ORDER_ID", type=int, help="from `clore-mcp orders`")


def connect(arguments: argparse.Namespace) -> int:
    """Print how to connect to one order. Raises Failure unless stdout is a terminal."""
    if not sys.stdout.isatty():
        raise Failure(
            "connect shows a password or token, which a pipe or file would keep. Nothing was shown.",
            hint=f"Run it in a terminal. `{command_prefix(arguments)} orders` has the SSH lines without secrets.",
        )
    order_id = arguments.order_id
    with opened(arguments) as (services, runner):
        access, made_here, secrets = runner.run(_ways(services, order_id))
    if access.ssh:
        say("SSH:")
        print(f"  {access.ssh.command}")
        say(f"or, with these lines in ~/.ssh/config, `ssh clore-{order_id}`:")
        for line in ssh_config(order_id, access.ssh, services.settings.state_dir).splitlines():
            print(f"  {line}")
    if access.http_url:
        say("Web:")
        print(f"  {access.http_url}")
    for name, value in secrets.items():
        print(f"  {name.replace('_', ' ')}: {value}")
    if access.warning:
        loud(f"{access.warning} If that does not change, cancel the order and take another server.")
    elif access.ssh is None:
        say("No address yet. Deploying takes 2 to 5 minutes and is billed. Check again then.")
    if not made_here:
        say("Not made here, so clore-mcp has neither its key nor its passwords.")
    return 0 if access.ssh else 1


async def _ways(services: Services, order_id: int) -> tuple[Access, bool, dict[str, str]]:
    """Return how to connect to the order, whether it was made here, and its token or password."""
    context = services.context
    account = await context.readings.account()
    row = (await context.readings.orders(EXECUTION_AGE)).find(order_id)

    def read(tx: Tx) -> tuple[bool, dict[str, str]]:
        lease = orders.get(tx, account, order_id)
        return lease is not None, orders.secrets_of(tx, lease.intent_id) if lease else {}

    made_here, secrets = await context.state.read(read)
    if row is None or row.expired:
        raise NotFound(f"No order {order_id} is running.", hint=f"`{context.program} orders` lists what runs.")
    return access_of(row, context.ssh_key() if made_here else None), made_here, secrets
