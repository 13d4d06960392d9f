"""What every step of the tour does: call a tool and show it, pass the server's question on, check what was claimed.

It sees what any MCP client sees, and nothing of our code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import anyio.lowlevel
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from clore_mcp.cli.demo_screen import Key, Screen, ctrl_c_raises

STEPS: Final = 11
MICRO: Final = 0.0000011  # results have six places; a float's last bit is no error
FOURTH_PLACE: Final = 0.0001  # prices per hour are rounded to four

_LOOKS_EVERY_SECONDS: Final = 0.5
_LOOKS_SECONDS: Final = 60.0


class TourStopped(Exception):
    """The tour ends before its last step; `code` is the exit code."""

    code = 0


class Left(TourStopped):
    """The person left, or said no twice."""


class Interrupted(TourStopped):
    """Ctrl-C at a question."""

    code = 130


class Broken(TourStopped):
    """A step did not do what it shows."""

    code = 1


class Guide:
    """The assistant's part, played by a script, and the person's, played by the person (or `--yes`)."""

    def __init__(self, screen: Screen, *, yes: bool) -> None:
        self.step = "The start"
        self.screen = screen
        self.yes = yes
        self.client: Client | None = None
        self._questions: list[str] = []
        self._last: Key | None = None
        self._interrupted = False

    async def answer(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        """Show the server's question as it is, and pass on what the person answers."""
        self.screen.idle()
        self._questions.append(params.message)
        with ctrl_c_raises():
            await anyio.lowlevel.checkpoint()  # a Ctrl-C that came just before is taken here
            self._last = self._answered(params.message)
        if self._last == "q":
            return ElicitResult(action="cancel")
        self.screen.busy("working")
        return ElicitResult(action="accept", content={"approve": self._last == "y"})

    def _answered(self, question: str) -> Key:
        """The answer. Waiting for it blocks the loop on purpose: nothing else is to happen meanwhile."""
        try:
            self.screen.frame("The server asks you", question)
            if not self.yes:
                return self.screen.ask()
        except KeyboardInterrupt:
            self._interrupted = True
            return "q"
        self.screen.say("Your answer? y (given by --yes)", "bold")
        return "y"

    def heading(self, number: int, title: str) -> None:
        """A step begins."""
        self.step = f"Step {number} ({title})"
        self.screen.idle()
        self.screen.heading(f"{number}/{STEPS} {title}")

    def check(self, holds: bool, otherwise: str) -> None:
        """End the tour where a step did not do what it shows."""
        if not holds:
            raise Broken(f"{self.step}: {otherwise}.")

    def sum(self, money: Mapping[str, Any]) -> None:
        """Show the parts of a price or a receipt and their total, which they must add up to."""
        names = {"rent_usd": "rent", "fee_usd": "Clore's fee", "creation_fee_usd": "creation fee", "total_usd": "total"}
        self.check(names.keys() <= money.keys(), "there is no receipt")
        *parts, total = (money[name] for name in names)
        self.check(abs(sum(parts) - total) < MICRO, "the parts do not add up to the total")
        self.screen.table(("", ""), [(name, usd(money[key], 6)) for key, name in names.items()], right=(1,))

    async def asked(self, tool: str, arguments: Mapping[str, Any], wanted: str, after_no: str) -> Mapping[str, Any]:
        """A call that asks the person: offered twice, and never carried out without the question."""
        for chance in (1, 2):
            before = len(self._questions)
            answer = await self.call(tool, arguments)
            self.check(len(self._questions) == before + 1, f"{tool} asked {len(self._questions) - before} times")
            if self._interrupted:
                raise Interrupted
            if self._last == "y":
                self.check(answer["status"] == wanted, f"{tool} answered {answer['status']}: {answer.get('next', '')}")
                return answer
            self.check(answer["status"] == "declined", f"{tool} answered {answer['status']} to a no")
            self.screen.result("declined", after_no, good=False)
            if self._last == "q" or chance == 2:
                break
            self.screen.say(
                "That no is final for this quote: the model cannot get round it, only ask anew. It is told to ask you"
                " what to change. For the tour, the same question once more:"
            )
        raise Left

    async def nothing_runs(self) -> None:
        """Show that no order is left."""
        told = await self.call("list_orders", {})
        self.check(not told.get("orders") and not told.get("unsettled"), "something still runs")
        self.screen.result("no orders", f"{usd(told['total_usd_per_hour'], 2)} per hour")

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """One tool call, shown; its structured result. A failure of any kind ends the tour."""
        self.screen.call(tool, arguments)
        self.screen.busy("working")
        return await self._answer_of(tool, arguments)

    async def until(
        self,
        happened: Callable[[Mapping[str, Any]], bool],
        tool: str,
        arguments: Mapping[str, Any],
        sign: Callable[[Mapping[str, Any]], str],
    ) -> Mapping[str, Any]:
        """The same call, shown once, until its result says that it happened; that result. Until then a `sign` of life
        is read from each, and shown when it is another. After a minute the tour ends."""
        self.screen.call(tool, arguments)
        self.screen.busy("looking on")
        began, shown = time.monotonic(), ""
        while (passed := time.monotonic() - began) < _LOOKS_SECONDS:
            told = await self._answer_of(tool, arguments)
            if happened(told):
                return told
            if sign(told) != shown:
                shown = sign(told)
                self.screen.progress(passed, shown)
            self.screen.busy("looking on")
            await anyio.sleep(_LOOKS_EVERY_SECONDS)
        raise Broken(f"{self.step}: it did not happen within {_LOOKS_SECONDS:.0f} seconds.")

    async def _answer_of(self, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        assert self.client is not None  # noqa: S101 - set before any step
        try:
            result = await self.client.call_tool(tool, dict(arguments), progress_callback=self._progress)
        except MCPError as error:
            raise Broken(f"{self.step}: {tool} failed: {error}") from error
        finally:
            self.screen.idle()
        if result.is_error or not isinstance(result.structured_content, dict):
            raise Broken(f"{self.step}: {tool} failed: {_failure(result)}")
        return result.structured_content

    async def _progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.screen.progress(progress, message or "")


def _failure(result: CallToolResult) -> str:
    """What a failed tool says of itself."""
    said = next((block.text for block in result.content if isinstance(block, TextContent)), "it said nothing")
    try:
        told = json.loads(said)
        return f"{told['message']} {told['hint']}"
    except (ValueError, KeyError, TypeError):
        return said


def usd(amount: float, places: int) -> str:
    """'$0.1858'."""
    return f"${amount:.{places}f}"
