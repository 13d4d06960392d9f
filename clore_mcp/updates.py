"""Notifies clients of changed resources: changes that any process of this state recorded or that this one saw at Clore.

Clients of the 2026-07-28 protocol listen (`subscriptions/listen`, which the SDK serves from a bus). Clients of 2025
subscribe (`resources/subscribe`), which the low-level server serves, because MCPServer can't. Both get only the changes
that they asked for. While a client listens, the ledger is read every second, and nothing is sent to Clore.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mcp.server import MCPServer
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from clore_mcp.errors import Failure
from clore_mcp.first_use import FirstUse

if TYPE_CHECKING:
    from clore_mcp.rental.events import Changed, Changes
    from clore_mcp.wiring import Services

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
_MOST_URIS: Final = 200  # for one client
_OURS: Final = "clore://"


@dataclass(slots=True)
class _Subscriber:
    """A client of 2025, and its subscriptions."""

    session: ServerSession
    uris: set[str] = field(default_factory=set)


class Updates(InMemorySubscriptionBus):
    """The bus for clients that listen, and the list of those that subscribe. Watches for changes while there are any.
    `running` holds the services of the running servers."""

    def __init__(self, running: list[FirstUse]) -> None:
        super().__init__()
        self._running = running
        self._listening = set[Callable[[], None]]()  # what ends each listener's subscription
        self._subscribers: dict[int, _Subscriber] = {}
        self._task: asyncio.Task[None] | None = None

    def register(self, server: MCPServer[FirstUse]) -> None:
        """Serve the subscriptions of 2025 too, and announce them to those clients."""
        below: Any = server._lowlevel_server  # SDK 2.3 exposes it nowhere else
        below.add_request_handler("resources/subscribe", SubscribeRequestParams, self._subscribe)
        below.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, self._unsubscribe)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """See InMemorySubscriptionBus."""
        end = super().subscribe(listener)
        self._listening.add(end)

        def unsubscribe() -> None:
            self._listening.discard(end)
            end()

        self._begin()
        return unsubscribe

    async def stop(self) -> None:
        """Stop watching, because the listeners have gone."""
        self._subscribers.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _subscribe(self, ctx: ServerRequestContext[FirstUse], params: SubscribeRequestParams) -> EmptyResult:
        uri = str(params.uri)
        subscriber = self._subscribers.setdefault(_client(ctx), _Subscriber(ctx.session))
        if not uri.startswith(_OURS) or (len(subscriber.uris) >= _MOST_URIS and uri not in subscriber.uris):
            raise MCPError(INVALID_PARAMS, f"Only {_OURS} resources can be subscribed to, up to {_MOST_URIS}.")
        subscriber.uris.add(uri)
        self._begin()
        return EmptyResult()

    async def _unsubscribe(self, ctx: ServerRequestContext[FirstUse], params: UnsubscribeRequestParams) -> EmptyResult:
        subscriber = self._subscribers.get(_client(ctx))
        if subscriber is not None:
            subscriber.uris.discard(str(params.uri))
        return EmptyResult()

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._watch(time.time()))

    async def _watch(self, since: float) -> None:
        """Look for changes and publish them while any client listens."""
        changes: tuple[Services, Changes] | None = None
        while self._listening or any(one.uris for one in self._subscribers.values()):
            services = self._running[-1].wired if self._running else None
            if services is not None:
                if changes is None or changes[0] is not services:
                    changes = services, services.changes(since)
                try:
                    for uri in _uris(await changes[1].look()):
                        await self._notify(uri)
                except Failure as failure:
                    log.debug("changes could not be read: %s", failure.message)
                except Exception as error:  # a client that can't be notified must not stop it for the others
                    log.warning("changes could not be reported: %s", type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def _notify(self, uri: str) -> None:
        await self.publish(ResourceUpdated(uri))
        for client, subscriber in list(self._subscribers.items()):
            if uri in subscriber.uris:
                try:
                    await subscriber.session.send_resource_updated(uri)
                except Exception as error:  # its connection is closed
                    log.debug("a client has gone: %s", type(error).__name__)
                    self._subscribers.pop(client, None)


def _client(ctx: ServerRequestContext[FirstUse]) -> int:
    """Return what identifies a connection. Sessions are made per request, but the client's first parameters are
    kept."""
    return id(ctx.session.client_params)


def _uris(changed: Changed) -> Iterator[str]:
    if changed.account:
        yield f"{_OURS}orders"
        yield f"{_OURS}account"
    for order_id in sorted(changed.order_ids):
        yield f"{_OURS}orders/{order_id}"
        yield f"{_OURS}orders/{order_id}/ssh-config"
    if changed.ledger:
        yield f"{_OURS}ledger"
