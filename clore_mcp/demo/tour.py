"""The tour: it starts a server, takes six steps that are each checked, and stops the server.

The server is a child process with its own folder, which is removed at the end. After Ctrl-C, `q` or a failed step, the
client closes the server's stdin and waits for it to exit.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, TextIO

import anyio
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.types import Implementation

from clore_mcp import __version__
from clore_mcp.demo.guide import STEPS, Guide, Interrupted, StepFailed, TourStopped, usd
from clore_mcp.demo.page import page_beside
from clore_mcp.demo.screen import Screen

_PATIENCE_SECONDS: Final = 90.0
_LOG_SHOWN: Final = 8
_WISH: Final = {
    "gpu": "4090", "countries": ["europe"], "min_reliability": 0.99, "max_usd_per_hour": 0.4, "limit": 4,
}  # fmt: skip
_HOURS: Final = 2
_FOURTH_PLACE: Final = 0.0001  # prices per hour are rounded to four decimal places
# A made-up public key that has no private half, so that the tour neither needs nor touches anyone's ~/.ssh.
_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNsb3JlLW1jcCBkZW1vLCBhIGtleSBvZiBub2JvZHkh demo"
_FOLDERS: Final = (
    "HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "WIN_PD_OVERRIDE_APPDATA", "WIN_PD_OVERRIDE_LOCAL_APPDATA",
)  # fmt: skip


def give_tour(*, yes: bool, page: bool) -> int:
    """Give the tour, with the person's page beside it if `page`, and return its exit code."""
    logging.getLogger("mcp").addHandler(logging.NullHandler())  # the SDK's log lines must not mix with the tour
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="clore-demo-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "server.log")
        try:
            with log.open("w", encoding="utf-8") as errors:
                anyio.run(_connected, screen, Path(folder), errors, yes, page)
        except KeyboardInterrupt:
            stop: TourStopped = Interrupted()
        except TourStopped as stopped:
            stop = stopped
        else:
            return 0
        _part(screen, stop, log)
    return stop.code


async def _connected(screen: Screen, folder: Path, errors: TextIO, yes: bool, page: bool) -> None:
    """Start the server, give the tour and stop the server. Raises TourStopped if it ends before the last step."""
    guide, began, server = Guide(screen, yes=yes), time.monotonic(), _server(folder)
    _welcome(guide)
    stop: TourStopped | None = None
    try:
        async with Client(
            stdio_client(server, errlog=errors),
            elicitation_callback=guide.answer,
            read_timeout_seconds=_PATIENCE_SECONDS,
            client_info=Implementation(name="clore-mcp demo", version=__version__),
        ) as client:
            guide.client = client
            try:
                async with page_beside(guide, server.env or {}, errors) if page else nullcontext():
                    await rent_and_cancel(guide)
            except TourStopped as stopped:  # raised again outside, so that no task group wraps it
                stop = stopped
    except (MCPError, OSError, ExceptionGroup) as error:
        stop = stop or StepFailed(f"{guide.step}: the connection to the server failed: {_innermost(error)}")
    finally:
        screen.idle()
    if stop is not None:
        raise stop
    screen.gap()
    screen.say(f"All {STEPS} steps did what they show, in {time.monotonic() - began:.0f} seconds.", "bold green")
    screen.say("Next: README.md has the lines that give your assistant this server.")
    screen.say("No key yet? With `clore-mcp --sandbox` it rents in the simulation, as here.")


def _server(folder: Path) -> StdioServerParameters:
    """Return how to start the real server with a simulated market, in its own folders, with a minimal environment."""
    home = folder / "home"
    home.mkdir()
    env = dict.fromkeys(_FOLDERS, str(home))
    env |= {"CLORE_STATE_DIR": str(folder / "state"), "CLORE_SSH_PUBLIC_KEY": _KEY}
    if "PYTHONPATH" in os.environ:
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return StdioServerParameters(command=sys.executable, args=["-m", "clore_mcp", "--sandbox"], env=env)


def _innermost(error: BaseException) -> BaseException:
    """Return the original error, without the task groups around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _welcome(guide: Guide) -> None:
    screen = guide.screen
    screen.gap()
    screen.say(f"clore-mcp {__version__}: a guided tour", "bold")
    screen.say(
        "A real MCP client drives the real server. Only the marketplace is simulated: no key, no account, no money, and"
        " its clock runs faster than yours."
    )
    if guide.yes:
        screen.say("With --yes the tour answers the questions itself. On your own account, you answer them.")
    screen.gap()
    screen.say('You ask your assistant: "A 4090 in Europe under 40 cents, two hours, with Jupyter."', "italic")
    screen.busy("starting the server")


def _part(screen: Screen, stop: TourStopped, log: Path) -> None:
    screen.idle()
    if isinstance(stop, StepFailed):
        print(f"\nclore-mcp demo: {stop}", file=sys.stderr)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in [line for line in lines if line.strip(" |^")][-_LOG_SHOWN:]:
            print(f"  server: {line}", file=sys.stderr)
        return
    screen.gap()
    screen.say("The tour ends here. The simulated market and everything in it are gone. Nothing was spent.")
    if not isinstance(stop, Interrupted):
        screen.say("To take it again, run `clore-mcp demo`.")


# The six steps


async def rent_and_cancel(guide: Guide) -> None:
    """Take the six steps: search, quote, question and rental, SSH line, cancel, receipt."""
    server = await _search(guide)
    ask = {"server_id": server["server_id"], "image": "jupyter", "hours": _HOURS, "jupyter": True}
    await _quote(guide, ask, server)
    order_id = await _rent(guide, ask)
    await _wait(guide, order_id)
    await _end(guide, order_id)


async def _search(guide: Guide) -> Mapping[str, Any]:
    guide.heading(1, "Search")
    guide.screen.say("The assistant searches. That costs nothing and needs no approval.")
    found = await guide.call("search_servers", _WISH)
    servers: list[Mapping[str, Any]] = found.get("servers", [])
    guide.check(bool(servers), "it found no server")
    rows = []
    for row in servers:
        fits = "4090" in row["gpu"] and row["usd_per_hour"] <= _WISH["max_usd_per_hour"] and not row["rented"]
        guide.check(fits, f"server {row['server_id']} is not what was asked for")
        gpu, where = f"{row['gpu_count']}x {row['gpu']}", row.get("country", "?")
        reliable, price = f"{row.get('reliability', 0):.1%}", f"{row['usd_per_hour']:.4f}"
        rows.append((str(row["server_id"]), gpu, where, reliable, price))
    cheapest = f"the cheapest {len(servers)}, seen {found['snapshot_age_seconds']:g} s ago:"
    guide.screen.result(f"{found['total_matches']} servers", cheapest)
    guide.screen.table(("server", "GPU", "where", "reliable", "USD/hour"), rows, right=(3, 4))
    return servers[0]


async def _quote(guide: Guide, ask: Mapping[str, Any], server: Mapping[str, Any]) -> None:
    guide.heading(2, "Quote")
    guide.screen.say("What would two hours on the cheapest one cost, including all fees?")
    quote = await guide.call("quote_order", ask)
    guide.check(quote["allowed"], "the limits refuse it")
    guide.check(
        abs(quote["rent_usd"] + quote["fee_usd"] - server["usd_per_hour"] * _HOURS) < _HOURS * _FOURTH_PLACE,
        "rent and fee are not the hourly price of the search",
    )
    hourly, worst = usd(quote["usd_per_hour"], 4), usd(quote["worst_case_usd"], 4)
    guide.screen.result("allowed", f"{hourly} per hour; worst case {worst}")
    guide.sum(quote)


async def _rent(guide: Guide, ask: Mapping[str, Any]) -> int:
    guide.heading(3, "Question and rental")
    guide.screen.say("create_order asks you first, through the client. The model can't answer for you.")
    made = await guide.asked("create_order", ask, "created", "Nothing was rented and nothing was spent.")
    guide.check(made.get("server_id") == ask["server_id"], "it rented another server")
    guide.screen.result(
        "created",
        f"order {made['order_id']}, {usd(made['usd_per_hour'], 4)} per hour, until {made['ends_at']}",
        f"{usd(made['reserved_usd'], 4)}, the worst case, counts against your limits",
    )
    return int(made["order_id"])


async def _wait(guide: Guide, order_id: int) -> None:
    guide.heading(4, "SSH")
    guide.screen.say("The container is loaded and started. Clore bills that time too, so the assistant waits for it.")
    order = await guide.call("wait_for_order", {"order_id": order_id, "timeout_seconds": 50})
    command = order.get("ssh", {}).get("command", "")
    guide.check(order.get("ready") is True, f"the order is not ready ({order.get('status')})")
    guide.check(command.startswith("ssh "), "there is no SSH command")
    guide.screen.result("ready", "you would paste this command (here the port only says hello):")
    guide.screen.line(command)


async def _end(guide: Guide, order_id: int) -> None:
    guide.heading(5, "Cancel")
    guide.screen.say("You are done early. Cancelling deletes the container, so cancel_order asks first, too.")
    gone = await guide.asked(
        "cancel_order", {"order_id": order_id}, "cancelled", "The order keeps running and billing."
    )
    guide.screen.result("cancelled", f"order {order_id} is proven gone, not only requested to end")
    guide.heading(6, "Receipt")
    guide.sum(gone.get("receipt", {}))
    told = await guide.call("list_orders", {})
    guide.check(not told.get("orders") and not told.get("unsettled"), "something still runs")
    guide.screen.result("no orders", f"nothing is left behind: {usd(told['total_usd_per_hour'], 2)} per hour")
