"""Runs the page's process: its loopback sockets, the requests to show the page, and its exit when it is no longer
used."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import socket
import time
import webbrowser
from typing import Final

import uvicorn

from clore_mcp.page.app import PageApp
from clore_mcp.page_process import (
    LOG_NAME,
    PageReply,
    PageRequest,
    answer_request,
    place_of,
    requests_folder,
    take_requests,
)
from clore_mcp.settings import Settings
from clore_mcp.store.folder import Place
from clore_mcp.wiring import build

log = logging.getLogger(__name__)

_TICK_SECONDS: Final = 0.2
_TAKES: Final = 5
_IDLE_SECONDS: Final = 900.0
_PORT_TRIES: Final = 20
_LOG_BYTES: Final = 200_000


def run(wanted: Settings) -> int:
    """Serve until the page is no longer used. Returns 0 if another process serves it."""
    place = place_of(wanted)
    for _ in range(_TAKES):
        if place.take():
            break
        time.sleep(_TICK_SECONDS)  # another process may hold it only to check whether it is free
    else:
        return 0
    try:
        return asyncio.run(_serve(wanted, place))
    finally:
        place.release()


async def _serve(wanted: Settings, place: Place) -> int:
    _shorten_log(wanted)
    folder = requests_folder(wanted)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob("*.answer"):
        left.unlink(missing_ok=True)
    sockets = _sockets()
    services = build(wanted)
    app = PageApp(services, port=sockets[0].getsockname()[1], room=secrets.token_hex(8))
    server = uvicorn.Server(
        uvicorn.Config(
            app.asgi,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=16_384,
            http="h11",
            ws="none",  # other protocols that uvicorn finds would only use memory
            loop="asyncio",
        )
    )
    serving = asyncio.ensure_future(server.serve(sockets=sockets))
    try:
        while not serving.done() and not server.should_exit:
            for name, request in take_requests(folder) if server.started else ():
                await _show(app, wanted, name, request)
            await asyncio.sleep(_TICK_SECONDS)
            idle = time.monotonic() - app.used_at > _IDLE_SECONDS and not app.is_open
            if not place.stands or (idle and not await app.anything_waits()):
                break
    finally:
        app.closing = True
        server.should_exit = True
        await asyncio.wait([serving], timeout=5)
        await app.actions.aclose()
        await services.aclose()
        if place.stands:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


async def _show(app: PageApp, wanted: Settings, name: str, request: PageRequest) -> None:
    """Carry out a request to show the page. If a tab is open, it is used instead of a second one."""
    shown, address = True, ""
    if request.opens and app.is_open and not request.registers:
        app.lead_to(request.to)
    else:
        address = app.address(request.to, registers=request.registers)
        shown = request.opens and await asyncio.to_thread(open_in_browser, address)
        if shown:
            app.expect_tab()
    with contextlib.suppress(OSError):
        answer_request(requests_folder(wanted), name, PageReply(shown, "" if shown else address))


def open_in_browser(address: str) -> bool:
    """Return whether a browser was started with that address."""
    try:
        return webbrowser.open(address)
    except (webbrowser.Error, OSError) as error:
        log.warning("no browser could be opened: %s", error)
        return False


def _sockets() -> list[socket.socket]:
    """Return one port on every loopback address of this machine, so that no other process can serve under the name."""
    for _ in range(_PORT_TRIES):
        first = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        first.bind(("127.0.0.1", 0))
        try:
            return [first, *_second(first.getsockname()[1])]
        except OSError:
            first.close()
    raise OSError("no port is free on both loopback addresses")


def _second(port: int) -> list[socket.socket]:
    """Return the same port for IPv6, if there is IPv6. Raises OSError if another process holds it."""
    if not socket.has_ipv6:
        return []
    probe = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        probe.bind(("::1", 0))
    except OSError:
        return []  # no such address on this machine, so no other process can use it
    finally:
        probe.close()
    second = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        second.bind(("::1", port))
    except OSError:
        second.close()
        raise
    return [second]


def _shorten_log(wanted: Settings) -> None:
    with contextlib.suppress(OSError):
        path = wanted.state_dir / LOG_NAME
        if path.stat().st_size > _LOG_BYTES:
            os.truncate(path, 0)
