"""The services of a running server. The first call that needs them wires them, so that listing tools stays fast.

Most servers that a client starts only list their tools. The layers below the tools (market, rental, state, the Clore
client) are more than half of our modules, so the first call imports them here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from clore_mcp.errors import Failure
from clore_mcp.settings import Settings

if TYPE_CHECKING:
    from clore_mcp.page_process import PageOpener
    from clore_mcp.wiring import Services

_RESUME_AFTER_SECONDS: Final = 3.0
log = logging.getLogger(__name__)


class FirstUse:
    """Holds the services of a running server once a call has needed them."""

    def __init__(self, settings: Settings, *, starts_watchdog: bool = False) -> None:
        self._settings = settings
        self._starts_watchdog = starts_watchdog
        self.wired: Services | None = None  # None until a call has needed them
        self.page: PageOpener | None = None  # shows the person questions that can't be asked otherwise
        self.offers: dict[str, str] = {}  # addresses of that page, by the question of this round
        self.unaskable: set[str] = set()  # names of clients that answered a question with an error in this run
        self.asked: dict[str, tuple[float, float, int]] = {}  # per quote: first and last asked, how often unanswered

    def services(self) -> Services:
        """Return the services, the same ones each time. Call it only on the event loop, so that they are wired once."""
        if self.wired is None:
            from clore_mcp.wiring import build

            if self._starts_watchdog:
                from clore_mcp.page_process import PageOpener
                from clore_mcp.watchdog_process import starter

                self.page = PageOpener(self._settings)
                self.wired = build(self._settings, wake_watchdog=starter(self._settings), open_page=self.page.show)
            else:
                self.wired = build(self._settings)
        return self.wired

    async def resume_leases(self) -> None:
        """End the leases of an earlier run even if no tool is called. It waits first, because a client that only probes
        is gone by then."""
        await asyncio.sleep(_RESUME_AFTER_SECONDS)
        if self._settings.api_key is None or not await asyncio.to_thread(self._settings.state_dir.exists):
            return
        services = self.services()
        if await asyncio.to_thread(lambda: services.context.state.exists):
            try:
                await services.keep_leases()
            except Failure as failure:
                log.warning("leases of an earlier run are not watched yet: %s", failure.message)

    async def aclose(self) -> None:
        """Close what was opened."""
        if self.wired is not None:
            await self.wired.aclose()
