"""`clore-mcp connect ORDER_ID`: how to get into an order, with the token made for it. Shown in a terminal alone."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field

from clore_mcp.cli.approvals import command_prefix
from clore_mcp.cli.context import opened
from clore_mcp.cli.screen import loud, say
from clore_mcp.clore import OrderRow
from clore_mcp.errors import Failure, NotFound
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.orders.access import Access, access_of, ssh_config
from clore_mcp.store import orders
from clore_mcp.store.orders import Lease
from clore_mcp.wiring import Services


@dataclass(frozen=True, slots=True)
class Ways:
    """What leads into one order."""

    row: OrderRow
    access: Access
    made_here: bool
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which order."""
    parser.add_argument("order_id", metavar="ORDER_ID", type=int, help="from `clore-mcp orders`")


def run(arguments: argparse.Namespace) -> int:
    """Print the lines."""
    if not sys.stdout.isatty():
        raise Failure(
            "connect shows a password or token, and a pipe or file keeps it; nothing was shown.",
            hint=f"Run it in a terminal; `{command_prefix(arguments)} orders` has the SSH lines without secrets.",
        )
    with opened(arguments) as parts:
        ways = parts.run(_ways(parts.services, arguments.order_id, command_prefix(arguments)))
        state_dir = parts.services.settings.state_dir
    access = ways.access
    if access.ssh:
        say("SSH:")
        print(f"  {access.ssh.command}")
        say(f"or, with these lines in ~/.ssh/config, ssh clore-{ways.row.id}:")
        for line in ssh_config(ways.row.id, access.ssh, state_dir).splitlines():
            print(f"  {line}")
    if access.http_url:
        say("Web:")
        print(f"  {access.http_url}")
    for name, value in ways.secrets.items():
        print(f"  {name.replace('_', ' ')}: {value}")
    if access.warning:
        loud(f"{access.warning} If it stays so, cancel the order and take another server.")
    elif access.ssh is None:
        say("No address yet. Deploying takes 2 to 5 minutes, and it is billing; look again then.")
    if not ways.made_here:
        say("Not made here: its key and passwords are known to whoever made it.")
    return 0 if access.ssh else 1


async def _ways(services: Services, order_id: int, prefix: str) -> Ways:
    context = services.context
    account = await context.readings.account()
    row = (await context.readings.orders(EXECUTION_AGE)).find(order_id)
    lease = await context.state.read(lambda tx: orders.get(tx, account, order_id))
    if row is None or row.expired:
        raise NotFound(f"No order {order_id} is running.", hint=f"`{prefix} orders` lists what runs.")
    access = access_of(row, context.ssh_key() if lease else None)
    return Ways(row, access, lease is not None, await _secrets(services, lease))


async def _secrets(services: Services, lease: Lease | None) -> dict[str, str]:
    if lease is None:
        return {}
    return await services.context.state.read(lambda tx: orders.secrets_of(tx, lease.intent_id))
