"""The tour: what it tells first, its three parts, each checked for what it claims, and what it tells at the end."""

from __future__ import annotations

import time

from mcp import Client

from clore_mcp import __version__
from clore_mcp.cli.demo_guide import STEPS, Guide
from clore_mcp.cli.demo_lease import let_a_lease_end
from clore_mcp.cli.demo_market import DemoMarket
from clore_mcp.cli.demo_rental import rent_and_cancel
from clore_mcp.cli.demo_watch import rent_when_cheaper
from clore_mcp.cli.serve import SANDBOX_SPEED


class Tour:
    """One tour, told by its guide."""

    def __init__(self, guide: Guide, market: DemoMarket) -> None:
        self._guide = guide
        self._market = market
        self._began = time.monotonic()

    async def give(self, client: Client) -> None:
        """Every step."""
        self._guide.client = client
        cheapest, second, third, *_ = await rent_and_cancel(self._guide)
        await let_a_lease_end(self._guide, second)
        await rent_when_cheaper(self._guide, self._market, cheapest, third)

    def welcome(self) -> None:
        """What this is, and what it is not."""
        screen = self._guide.screen
        screen.gap()
        screen.say(f"clore-mcp {__version__}: a guided tour", "bold")
        screen.say(
            "A real MCP client drives the real server. Only the marketplace is simulated: no key, no account, no"
            f" money, and its clock runs {SANDBOX_SPEED:g} times faster than yours."
        )
        if self._guide.yes:
            screen.say("--yes: the tour answers the questions by itself. On your account you would.")
        screen.gap()
        screen.say('You ask your assistant: "A 4090 in Europe under 40 cents, two hours, with Jupyter."', "italic")
        screen.busy("starting the server")

    def goodbye(self) -> None:
        """What to do next."""
        screen = self._guide.screen
        screen.gap()
        seconds = time.monotonic() - self._began
        screen.say(f"All {STEPS} steps did what they show, in {seconds:.0f} seconds.", "bold green")
        screen.say("Next: README.md has the lines that give your assistant this server.")
        screen.say("No key yet? With `clore-mcp --sandbox` it rents in the simulation, as here.")
