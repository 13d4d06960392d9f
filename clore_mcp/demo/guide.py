"""What every step of the tour needs: call a tool, show it, pass the server's question on and check the result.

It sees only what any MCP client sees.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import anyio.lowlevel
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from clore_mcp.demo.screen import Key, Screen, ctrl_c_raises

STEPS: Final = 6
_MICRO: Final = 0.0000011  # results have six decimal places; a float's last bit is not an error


class TourStopped(Exception):
    """The person left or declined twice, so the tour ends before its last step. `code` is the exit code."""

    code = 0


class Interrupted(TourStopped):
    """Ctrl-C at a question."""

    code = 130


class StepFailed(TourStopped):
    """A step did not do what it shows."""

    code = 1


class Guide:
    """Plays the assistant from a script. The person answers the questions, or `--yes` does."""

    def __init__(self, screen: Screen, *, yes: bool) -> None:
        self.step = "The start"
        self.screen = screen
        self.yes = yes
        self.client: Client | None = None
        self._questions = 0
        self._last: Key | None = None
        self._interrupted = False

    async def answer(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        """Show the server's question unchanged and return the person's answer."""
        self.screen.idle()
        self._questions += 1
        with ctrl_c_raises():
            await anyio.lowlevel.checkpoint()  # a Ctrl-C that came just before is taken here
            self._last = self._answered(params.message)
        if self._last == "q":
            return ElicitResult(action="cancel")
        self.screen.busy("working")
        return ElicitResult(action="accept", content={"approve": self._last == "y"})

    def _answered(self, question: str) -> Key:
        """Return the person's answer. Waiting for it blocks the event loop on purpose, so that nothing else happens."""
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
        self.step = f"Step {number} ({title})"
        self.screen.idle()
        self.screen.heading(f"{number}/{STEPS} {title}")

    def check(self, holds: bool, otherwise: str) -> None:
        """Raise StepFailed, which ends the tour, if a step did not do what it shows."""
        if not holds:
            raise StepFailed(f"{self.step}: {otherwise}.")

    def sum(self, money: Mapping[str, Any]) -> None:
        """Show the parts of a price or a receipt and their total, which they must add up to."""
        names = {"rent_usd": "rent", "fee_usd": "Clore's fee", "creation_fee_usd": "creation fee", "total_usd": "total"}
        self.check(names.keys() <= money.keys(), "there is no receipt")
        *parts, total = (money[name] for name in names)
        self.check(abs(sum(parts) - total) < _MICRO, "the parts do not add up to the total")
        self.screen.table(("", ""), [(name, usd(money[key], 6)) for key, name in names.items()], right=(1,))

    async def asked(self, tool: str, arguments: Mapping[str, Any], wanted: str, after_no: str) -> Mapping[str, Any]:
        """Make a call that asks the person, once more after a decline, and return its result. Raises TourStopped."""
        for chance in (1, 2):
            before = self._questions
            answer = await self.call(tool, arguments)
            self.check(self._questions == before + 1, f"{tool} asked {self._questions - before} times")
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
                "Your no is final for this quote. The model can't get around it and is told to ask you what to change."
                " For the tour, here is the same question again:"
            )
        raise TourStopped

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Show and make one tool call and return its structured result. Raises StepFailed for any failure."""
        assert self.client is not None  # noqa: S101 - set before any step
        self.screen.call(tool, arguments)
        self.screen.busy("working")
        try:
            result = await self.client.call_tool(tool, dict(arguments), progress_callback=self._progress)
        except MCPError as error:
            raise StepFailed(f"{self.step}: {tool} failed: {error}") from error
        finally:
            self.screen.idle()
        if result.is_error or not isinstance(result.structured_content, dict):
            raise StepFailed(f"{self.step}: {tool} failed: {_failure(result)}")
        return result.structured_content

    async def _progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.screen.progress(progress, message or "")


def _failure(result: CallToolResult) -> str:
    said = next((block.text for block in result.content if isinstance(block, TextContent)), "it said nothing")
    try:
        told = json.loads(said)
        return f"{told['message']} {told['hint']}"
    except (ValueError, KeyError, TypeError):
        return said


def usd(amount: float, places: int) -> str:
    """Return the amount as '$0.1858'."""
    return f"${amount:.{places}f}"
