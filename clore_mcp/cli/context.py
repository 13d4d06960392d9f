"""The settings and services that a person's command works with."""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from clore_mcp import settings
from clore_mcp.errors import Failure, ReadOnly
from clore_mcp.settings import Settings

if TYPE_CHECKING:
    from clore_mcp.wiring import Services

_NOBODY: Final = "http://127.0.0.1:9/v1"  # the discard port: for commands that only read the sandbox's state
_LISTENS_WITHIN: Final = 2.0
# For a command that ends orders. Its other reads don't wait for a pause that Clore asked for, nor in a long queue.
ENDING_QUEUE_SECONDS: Final = 8.0


@contextmanager
def opened(
    arguments: argparse.Namespace, *, queue_seconds: float | None = None
) -> Iterator[tuple[Services, asyncio.Runner]]:
    """Yield the services for a command that talks to Clore, and their event loop. Between two runs of the loop a person
    can be asked, and Ctrl-C still works. `queue_seconds`: see `build`. Raises Failure as `settings_with_api` does."""
    wanted = settings_with_api(arguments)
    from clore_mcp.wiring import build  # after the settings, because it takes long to import

    with asyncio.Runner() as runner:
        services = build(wanted, queue_seconds=queue_seconds)
        # A person who types a command wants the present state, not what another process read earlier.
        services.context.readings.changed()
        try:
            yield services, runner
        finally:
            runner.run(services.aclose())


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings for a command that reads and writes only the state."""
    wanted = settings.load(sandbox=arguments.sandbox)
    if not arguments.sandbox:
        return wanted
    from clore_mcp.cli.serve import SANDBOX_GAP_SECONDS, SANDBOX_URL_FILE
    from clore_mcp.sandbox import SANDBOX_KEY

    url = _announced(wanted.state_dir / "sandbox" / SANDBOX_URL_FILE)
    return wanted.with_sandbox(url, SANDBOX_KEY, gap_seconds=SANDBOX_GAP_SECONDS)


def settings_with_api(arguments: argparse.Namespace) -> Settings:
    """Return the settings for a command that talks to Clore. Raises Failure if the simulated one is not running."""
    wanted = settings_of(arguments)
    if arguments.sandbox and not _listens(wanted.api_url):
        raise Failure(
            "No simulated marketplace is running.",
            hint="It runs inside `clore-mcp --sandbox`. Start that first, in an assistant or another terminal.",
        )
    return wanted


def command_prefix(arguments: argparse.Namespace) -> str:
    """Return how to type the program for the same marketplace: with --sandbox or without."""
    return "clore-mcp --sandbox" if arguments.sandbox else "clore-mcp"


def require_spending(wanted: Settings) -> None:
    """Raise Failure if the operator allows only reading."""
    if wanted.read_only:
        raise ReadOnly(
            "CLORE_READ_ONLY is set, so nothing was changed.", hint="To change something, unset it for this command."
        )


def _announced(file: Path) -> str:
    """Return the URL that a running `clore-mcp --sandbox` has written there, or _NOBODY."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return _NOBODY
    return text if re.fullmatch(r"http://127\.0\.0\.1:[0-9]{1,5}/v1", text) else _NOBODY


def _listens(url: str) -> bool:
    if url == _NOBODY:
        return False
    try:
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=_LISTENS_WITHIN).close()
    except (OSError, ValueError):  # ValueError: no such port
        return False
    return True
