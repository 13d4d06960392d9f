"""The resources: the answers of the reading tools at fixed addresses, for clients that show or attach them.

The data comes from the same parts as the tools', through the same result models. A static resource gets no Context from
the SDK, so `register` receives a function that returns the services of the running server. The first read of a resource
imports the market, rental and state code, so that listing resources stays fast.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.mcpserver.resources import FunctionResource

from clore_mcp.errors import Failure, NotFound
from clore_mcp.first_use import FirstUse
from clore_mcp.money import shown
from clore_mcp.rental.containers import KNOWN, SHORT_NAMES, KnownImage
from clore_mcp.settings import Settings
from clore_mcp.text import iso
from clore_mcp.tools.account import account_answer
from clore_mcp.tools.kit import compact
from clore_mcp.tools.order_answers import ShownOrder
from clore_mcp.tools.orders import orders_answer

if TYPE_CHECKING:
    from clore_mcp.market.summary import ModelSummary
    from clore_mcp.rental.orders.order_view import OrderView
    from clore_mcp.store import ledger
    from clore_mcp.wiring import Services

JSON: Final = "application/json"
LEDGER_STEPS: Final = 100
_LEDGER_CHARACTERS: Final = 24_000
_ORDER_ID: Final = re.compile(r"[1-9][0-9]{0,39}")
_TERMS_STEP: Final = "quoted"  # its data is the whole quote, several times as long as the rest

OTHER_IMAGES: Final = (
    "Any public Docker image can be used. A private one can't be fetched, because no registry login is sent. An"
    " image that is not listed with its own sshd gets Clore's SSH entrypoint, which does not work in every image."
)


def register(server: MCPServer[FirstUse], settings: Settings, current: Callable[[], Services]) -> None:
    """Add the resources of the toolsets that are on. `current` returns the services of the running server."""

    def add(path: str, toolset: str, title: str, description: str, read: Callable[[Services], Awaitable[Any]]) -> None:
        async def text() -> str:
            with _told():
                return compact(await read(current()))

        if toolset in settings.toolsets:
            server.add_resource(
                FunctionResource(
                    uri=f"clore://{path}", name=path, title=title, description=description, mime_type=JSON, fn=text
                )
            )

    add("orders", "orders", "Current orders", "What runs now, its cost, end and SSH command.", read_orders)
    add("account", "account", "Account", "Balances, cost per hour, limits, what waits for a person.", read_account)
    about = "Each model's servers and GPUs, free and in total, and prices including fees, now and last week."
    add("market/gpus", "market", "GPU models on the market", about, read_gpus)
    add("images", "market", "Docker images", "Short names for `image`, and what each image brings.", read_images)
    about = f"The newest {LEDGER_STEPS} steps of everything that spent or ended something."
    add("ledger", "account", "Ledger", about, read_ledger)
    if "orders" not in settings.toolsets:
        return

    @server.resource(
        "clore://orders/{order_id}",
        name="order",
        title="One order",
        description="State, cost, end and SSH command of one order, as list_orders shows it.",
        mime_type=JSON,
    )
    async def order(order_id: str) -> str:
        with _told():
            return compact(await read_order(current(), _id(order_id)))

    @server.resource(
        "clore://orders/{order_id}/ssh-config",
        name="ssh-config",
        title="ssh-config of one order",
        description="A block for ~/.ssh/config, for `ssh clore-ORDER_ID`.",
        mime_type="text/plain",
    )
    async def ssh_config(order_id: str) -> str:
        with _told():
            return await read_ssh_config(current(), _id(order_id))


async def read_orders(services: Services) -> dict[str, Any]:
    """Return what list_orders returns: its first page, which holds all orders unless the account has very many."""
    return (await orders_answer(services)).wire()


async def read_order(services: Services, order_id: int) -> dict[str, Any]:
    """Return one order as list_orders shows it. Raises NotFound."""
    return ShownOrder.model_validate(await _order(services, order_id), from_attributes=True).wire()


async def _order(services: Services, order_id: int) -> OrderView:
    await services.keep_leases()
    return (await services.overview.one(order_id)).view


async def read_ssh_config(services: Services, order_id: int) -> str:
    """Return the block for that order, or a comment that says why there is none. Raises NotFound."""
    from clore_mcp.rental.account.reading import EXECUTION_AGE
    from clore_mcp.rental.ssh import access

    context = services.context
    order = await _order(services, order_id)
    if order.over:
        return f"# Order {order_id} has ended; there is nothing to connect to.\n"
    row = (await context.readings.orders(EXECUTION_AGE)).find(order_id)
    reach = (
        access.Access()
        if row is None
        else access.access_of(row, await services.overview.key() if order.made_here else None)
    )
    if reach.ssh is not None:
        return access.ssh_config(order_id, reach.ssh, services.settings.state_dir)
    why = reach.warning or f"it is {order.status}, and Clore has given it no SSH address yet; read this again later."
    return f"# No ssh-config for order {order_id}: {why}\n"


async def read_account(services: Services) -> dict[str, Any]:
    """Return what get_account returns."""
    return (await account_answer(services)).wire()


async def read_gpus(services: Services) -> dict[str, Any]:
    """Return every GPU model on the market, those with the most free GPUs first."""
    from clore_mcp.market.history import models_now
    from clore_mcp.market.pricing import OrderType
    from clore_mcp.market.summary import gpu_models_summary
    from clore_mcp.tools.prices import WEEK_HOURS, model_prices

    readings = services.context.readings
    snapshot, fees = await readings.snapshot(), await readings.fees()
    found = await asyncio.to_thread(gpu_models_summary, snapshot, fees)
    now = await asyncio.to_thread(models_now, snapshot, fees, OrderType.ON_DEMAND)
    recorded = await services.prices.read(WEEK_HOURS, OrderType.ON_DEMAND)
    past = (model_prices(recorded.past(one.model, now.get(one.model)), one.model) for one in found)
    weeks = [one.model_dump(exclude={"gpu", "now"}, exclude_none=True, exclude_defaults=True) or None for one in past]
    return _without_none(
        {
            "models": [
                {**_model(one), "last_week_usd_per_gpu_hour": week} for one, week in zip(found, weeks, strict=True)
            ],
            "hours_recorded": recorded.hours,
            "snapshot_age_seconds": round(snapshot.age_seconds(services.context.clock()), 1),
            "stale": snapshot.stale_because,
        }
    )


async def read_images(_: Services) -> dict[str, Any]:
    """Return the images with a short name and the other known ones."""
    names = {known.image: name for name, known in SHORT_NAMES.items()}
    return {"images": [_image(known, names.get(known.image)) for known in KNOWN], "others": OTHER_IMAGES}


async def read_ledger(services: Services) -> dict[str, Any]:
    """Return the newest steps of this account that fit into the space for them, newest first."""
    from clore_mcp.store import ledger

    context = services.context
    account = await context.readings.account()
    entries = await context.state.read(lambda tx: ledger.read(tx, account=account, limit=LEDGER_STEPS))
    steps = [_step(entry) for entry in entries]
    kept = sum(size < _LEDGER_CHARACTERS for size in accumulate(len(compact(step)) for step in steps))
    if kept == len(steps):
        return {"steps": steps}
    return {"steps": steps[:kept], "more": f"And {len(steps) - kept} more: `clore-mcp ledger` lists them."}


@contextmanager
def _told() -> Iterator[None]:
    """Raise our failures as the SDK's. The SDK hides the text of any other exception."""
    try:
        yield
    except Failure as failure:
        kind = ResourceNotFoundError if isinstance(failure, NotFound) else ResourceError
        raise kind(f"{failure.message} {failure.hint}".strip()) from failure


def _id(text: str) -> int:
    if not _ORDER_ID.fullmatch(text):
        raise NotFound("An order's id is a whole number.", hint="list_orders shows the orders.")
    return int(text)


def _model(found: ModelSummary) -> dict[str, Any]:
    usual, cheapest = found.usd_per_gpu_hour, found.cheapest_free_usd_per_gpu_hour
    return _without_none(
        {
            "model": found.model,
            "servers": found.servers,
            "servers_free": found.servers_free,
            "gpus": found.gpus,
            "gpus_free": found.gpus_free,
            "vram_gb": list(found.vram_gb),
            "usd_per_gpu_hour": usual
            and {"low": shown(usual.low), "median": shown(usual.median), "high": shown(usual.high)},
            "cheapest_free_usd_per_gpu_hour": None if cheapest is None else shown(cheapest),
        }
    )


def _image(known: KnownImage, name: str | None) -> dict[str, Any]:
    return _without_none(
        {
            "name": name,
            "image": known.image,
            "has": known.brings,
            "pytorch": known.pytorch,
            "cuda": known.cuda,
            "jupyter": known.jupyter,
            "own_sshd": known.own_sshd,
            "ssh_on_clore": known.basis,
        }
    )


def _step(entry: ledger.Entry) -> dict[str, Any]:
    return _without_none(
        {
            "at": iso(entry.at),
            "step": entry.step,
            "caller": entry.caller,
            "quote_id": entry.quote_id,
            "intent_id": entry.intent_id,
            "order_id": entry.order_id,
            "server_id": entry.server_id,
            "data": None if entry.step == _TERMS_STEP else entry.data or None,
        }
    )


def _without_none(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}
