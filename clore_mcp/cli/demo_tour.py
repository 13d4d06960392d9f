"""The tour: seven steps, each checked for what it claims. It sees what any MCP client sees, and nothing of our code."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
import anyio.lowlevel
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from clore_mcp import __version__
from clore_mcp.cli.demo_screen import Key, Screen, ctrl_c_raises

_WISH: Final = {
    "gpu": "4090",
    "countries": ["europe"],
    "max_usd_per_hour": 0.4,
    "min_reliability": 0.99,
    "limit": 4,
}
_IMAGE: Final = "cloreai/jupyter:ubuntu24.04-v2"
_HOURS: Final = 2
_STEPS: Final = 7
_MICRO: Final = 0.0000011  # results have six places; a float's last bit is no error
_FOURTH_PLACE: Final = 0.0001  # prices per hour are rounded to four


class Stopped(Exception):
    """The tour ends before its last step; `code` is the exit code."""

    code = 0


class Left(Stopped):
    """The person left, or said no twice."""


class Interrupted(Stopped):
    """Ctrl-C at a question."""

    code = 130


class Broken(Stopped):
    """A step did not do what it shows."""

    code = 1


class Tour:
    """One tour: the assistant's part, played by a script, and the person's, played by the person (or `--yes`)."""

    def __init__(self, screen: Screen, *, yes: bool) -> None:
        self.step = "The start"
        self._screen = screen
        self._yes = yes
        self._client: Client | None = None
        self._questions: list[str] = []
        self._last: Key | None = None
        self._interrupted = False
        self._began = time.monotonic()

    async def give(self, client: Client) -> None:
        """The seven steps."""
        self._client = client
        servers = await self._search()
        ask = {
            "server_id": servers[0]["server_id"],
            "image": _IMAGE,
            "hours": _HOURS,
            "jupyter": True,
        }
        await self._quote(ask, servers[0])
        order_id = await self._rent(ask)
        await self._wait(order_id)
        await self._list(order_id)
        await self._receipt(await self._cancel(order_id), order_id)

    def welcome(self) -> None:
        """What this is, and what it is not."""
        screen = self._screen
        screen.gap()
        screen.say(f"clore-mcp {__version__}: a guided tour", "bold")
        screen.say(
            "A real MCP client drives the real server. Only the marketplace is simulated:"
            " no key, no account, no money, and time runs ten times faster."
        )
        if self._yes:
            screen.say("--yes: the tour answers the questions by itself. On your account you would.")
        screen.gap()
        screen.say('You ask your assistant: "A 4090 in Europe under 40 cents, two hours, with Jupyter."', "italic")
        screen.busy("starting the server")

    def goodbye(self) -> None:
        """What to do next."""
        screen = self._screen
        screen.gap()
        seconds = time.monotonic() - self._began
        screen.say(f"All {_STEPS} steps did what they show, in {seconds:.0f} seconds.", "bold green")
        screen.say("Next: README.md has the lines that give your assistant this server.")
        screen.say("No key yet? With `clore-mcp --sandbox` it rents in the simulation, as here.")

    async def answer(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        """Show the server's question as it is, and pass on what the person answers."""
        self._screen.idle()
        self._questions.append(params.message)
        with ctrl_c_raises():
            await anyio.lowlevel.checkpoint()  # a Ctrl-C that came just before is taken here
            self._last = self._answered(params.message)
        if self._last == "q":
            return ElicitResult(action="cancel")
        self._screen.busy("working")
        return ElicitResult(action="accept", content={"approve": self._last == "y"})

    def _answered(self, question: str) -> Key:
        """The answer. Waiting for it blocks the loop on purpose: nothing else is to happen meanwhile."""
        try:
            self._screen.frame("The server asks you", question)
            if not self._yes:
                return self._screen.ask()
        except KeyboardInterrupt:
            self._interrupted = True
            return "q"
        self._screen.say("Your answer? y (given by --yes)", "bold")
        return "y"

    async def _search(self) -> Sequence[Mapping[str, Any]]:
        self._heading(1, "Search")
        self._screen.say("The assistant looks around. Looking costs nothing and asks nobody.")
        found = await self._call("search_servers", _WISH)
        servers: list[Mapping[str, Any]] = found.get("servers", [])
        self._check(bool(servers), "it found no server")
        for row in servers:
            fits = "4090" in row["gpu"] and row["usd_per_hour"] <= _WISH["max_usd_per_hour"] and not row["rented"]
            self._check(fits, f"server {row['server_id']} is not what was asked for")
        age = found["snapshot_age_seconds"]
        self._screen.result(f"{found['total_matches']} servers", f"the cheapest {len(servers)}, seen {age:g} s ago:")
        self._screen.table(
            ("server", "GPU", "where", "reliable", "RAM", "down", "USD/hour"),
            [
                (
                    str(row["server_id"]),
                    f"{row['gpu_count']}x {row['gpu']}",
                    row.get("country", "?"),
                    f"{row.get('reliability', 0):.1%}",
                    f"{row.get('ram_gb', 0):g} GB",
                    f"{row.get('download_mbps', 0):g} Mbps",
                    f"{row['usd_per_hour']:.4f}",
                )
                for row in servers
            ],
            right=(3, 4, 5, 6),
        )
        return servers

    async def _quote(self, ask: Mapping[str, Any], server: Mapping[str, Any]) -> None:
        self._heading(2, "Quote")
        self._screen.say("What would two hours on the cheapest one cost, with every fee?")
        quote = await self._call("quote_order", ask)
        parts = [quote["rent_usd"], quote["fee_usd"], quote["creation_fee_usd"]]
        self._check(quote["allowed"], "the limits refuse it")
        self._check(abs(sum(parts) - quote["total_usd"]) < _MICRO, "the parts do not add up to the total")
        self._check(
            abs(parts[0] + parts[1] - server["usd_per_hour"] * _HOURS) < _HOURS * _FOURTH_PLACE,
            "rent and fee are not the hourly price of the search",
        )
        self._screen.result(
            "allowed", f"{_usd(quote['usd_per_hour'], 4)} per hour; worst case {_usd(quote['worst_case_usd'], 4)}"
        )
        self._sum(quote)

    async def _rent(self, ask: Mapping[str, Any]) -> int:
        self._heading(3, "Question and rental")
        self._screen.say("create_order asks you first, through the client. The model cannot answer for you.")
        made = await self._asked("create_order", ask, "created", "Nothing was rented and nothing was spent.")
        order_id = int(made.get("order_id", 0))
        self._check(made.get("server_id") == ask["server_id"], "it rented another server")
        self._screen.result(
            "created",
            f"order {order_id}, {_usd(made['usd_per_hour'], 4)} per hour, until {made['ends_at']}",
            f"{_usd(made['reserved_usd'], 4)} are counted against your limits: the worst case, not the hope",
        )
        return order_id

    async def _wait(self, order_id: int) -> None:
        self._heading(4, "Wait for SSH")
        self._screen.say("The container is pulled and started. Clore bills that too, so the assistant stays.")
        began = time.monotonic()
        order = await self._call("wait_for_order", {"order_id": order_id, "timeout_seconds": 60})
        command = order.get("ssh", {}).get("command", "")
        self._check(order.get("ready") is True, f"the order is not ready ({order.get('status')})")
        self._check(command.startswith("ssh "), "there is no SSH line")
        self._screen.result("ready", f"after {time.monotonic() - began:.0f} s. You would paste this:")
        self._screen.line(command)
        self._screen.say("(Here that port only says hello: there is no machine behind it.)", "dim")

    async def _list(self, order_id: int) -> None:
        self._heading(5, "What runs now?")
        self._screen.say("Any time, in any chat: every order of the account and what it costs.")
        told = await self._call("list_orders", {})
        orders: list[Mapping[str, Any]] = told.get("orders", [])
        self._check([row["order_id"] for row in orders] == [order_id], "it does not list just the new order")
        total = sum(row["usd_per_hour"] for row in orders)
        self._check(abs(total - told["total_usd_per_hour"]) < _FOURTH_PLACE, "the total is not the sum of the orders")
        self._screen.result(f"{len(orders)} order", f"{_usd(told['total_usd_per_hour'], 4)} per hour in all")
        self._screen.table(
            ("order", "server", "state", "GPU", "USD/hour", "spent", "ends"),
            [
                (
                    str(row["order_id"]),
                    str(row["server_id"]),
                    row["status"],
                    f"{row['gpu_count']}x {row['gpu']}",
                    f"{row['usd_per_hour']:.4f}",
                    _usd(row["spent_usd"], 4),
                    row["ends_at"][11:16] + " UTC",
                )
                for row in orders
            ],
            right=(4, 5),
        )

    async def _cancel(self, order_id: int) -> Mapping[str, Any]:
        self._heading(6, "Cancel")
        self._screen.say("You are done early. Cancelling deletes the container, so it asks as well.")
        gone = await self._asked("cancel_order", {"order_id": order_id}, "cancelled", "The order runs on and bills.")
        self._screen.result("cancelled", f"order {order_id} is proven gone, not just asked to go")
        return gone

    async def _receipt(self, gone: Mapping[str, Any], order_id: int) -> None:
        self._heading(7, "Receipt")
        receipt = gone.get("receipt", {})
        parts = [receipt.get(name, 0.0) for name in ("rent_usd", "fee_usd", "creation_fee_usd")]
        self._check(bool(receipt), "there is no receipt")
        self._check(abs(sum(parts) - receipt["total_usd"]) < _MICRO, "the parts do not add up to the total")
        self._screen.say(
            f"{receipt['hours'] * 3600:.0f} seconds of the market's time for order {order_id}."
            " Clore takes its creation fee only after ten minutes."
        )
        self._sum(receipt)
        self._screen.say("And nothing may be left behind:")
        told = await self._call("list_orders", {})
        self._check(not told.get("orders") and not told.get("unsettled"), "something still runs")
        self._screen.result("no orders", f"{_usd(told['total_usd_per_hour'], 2)} per hour")

    async def _asked(self, tool: str, arguments: Mapping[str, Any], wanted: str, after_no: str) -> Mapping[str, Any]:
        """A call that asks the person: offered twice, and never carried out without the question."""
        for chance in (1, 2):
            before = len(self._questions)
            answer = await self._call(tool, arguments)
            self._check(len(self._questions) == before + 1, f"{tool} asked {len(self._questions) - before} times")
            if self._interrupted:
                raise Interrupted
            if self._last == "y":
                self._check(answer["status"] == wanted, f"{tool} answered {answer['status']}: {answer.get('next', '')}")
                return answer
            self._check(answer["status"] == "declined", f"{tool} answered {answer['status']} to a no")
            self._screen.result("declined", after_no, good=False)
            if self._last == "q" or chance == 2:
                break
            self._screen.say(
                "That no is final for this quote: the model cannot get round it, only ask anew. It is told to ask you"
                " what to change. For the tour, the same question once more:"
            )
        raise Left

    async def _call(self, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """One tool call, shown; its structured result. A failure of any kind ends the tour."""
        assert self._client is not None  # noqa: S101 - set by `give`, before any step
        self._screen.call(tool, arguments)
        self._screen.busy("working")
        try:
            result = await self._client.call_tool(tool, dict(arguments), progress_callback=self._progress)
        except MCPError as error:
            raise Broken(f"{self.step}: {tool} failed: {error}") from error
        finally:
            self._screen.idle()
        if result.is_error or not isinstance(result.structured_content, dict):
            raise Broken(f"{self.step}: {tool} failed: {_failure(result)}")
        return result.structured_content

    async def _progress(self, progress: float, total: float | None, message: str | None) -> None:
        self._screen.progress(progress, message or "")

    def _heading(self, number: int, title: str) -> None:
        self.step = f"Step {number} ({title})"
        self._screen.idle()
        self._screen.heading(f"{number}/{_STEPS} {title}")

    def _check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Broken(f"{self.step}: {otherwise}.")

    def _sum(self, money: Mapping[str, Any]) -> None:
        names = {"rent_usd": "rent", "fee_usd": "Clore's fee", "creation_fee_usd": "creation fee", "total_usd": "total"}
        self._screen.table(("", ""), [(name, _usd(money.get(key, 0), 6)) for key, name in names.items()], right=(1,))


def _failure(result: CallToolResult) -> str:
    """What a failed tool says of itself."""
    said = next((block.text for block in result.content if isinstance(block, TextContent)), "it said nothing")
    try:
        told = json.loads(said)
        return f"{told['message']} {told['hint']}"
    except (ValueError, KeyError, TypeError):
        return said


def _usd(amount: float, places: int) -> str:
    return f"${amount:.{places}f}"
