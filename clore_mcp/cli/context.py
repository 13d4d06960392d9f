"""What a person's command works with: the settings of the world it is about, and the parts wired for it."""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from clore_mcp import settings
from clore_mcp.errors import Failure, ReadOnly
from clore_mcp.settings import Settings

if TYPE_CHECKING:
    from clore_mcp.wiring import Services

T = TypeVar("T")

_NOBODY: Final = "http://127.0.0.1:9/v1"  # the discard port: for commands that read the sandbox's state alone
_LISTENS_WITHIN: Final = 2.0
# For a command that ends orders: what it reads beside them waits for no pause that Clore asks for, nor a long queue.
ENDING_QUEUE_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True)
class Opened:
    """The parts, and the loop they live in. Between two `run`s a person can be asked, and Ctrl-C still works."""

    services: Services
    _runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of some work."""
        return self._runner.run(work)


@contextmanager
def opened(arguments: argparse.Namespace, *, queue_seconds: float | None = None) -> Iterator[Opened]:
    """The parts wired for a command that talks to Clore, closed at the end. `queue_seconds` as of `build`."""
    wanted = settings_with_api(arguments)
    with opened_with(wanted, queue_seconds=queue_seconds) as parts:
        yield parts


@contextmanager
def opened_with(wanted: Settings, *, queue_seconds: float | None = None) -> Iterator[Opened]:
    """The parts wired for these settings, closed at the end."""
    from clore_mcp.wiring import build

    with asyncio.Runner() as runner:
        services = build(wanted, queue_seconds=queue_seconds)
        # Whoever types a command wants what is so now, not what another process read.
        services.context.readings.changed()
        try:
            yield Opened(services, runner)
        finally:
            runner.run(services.aclose())


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings for a command that reads and writes the state alone."""
    wanted = settings.load(sandbox=arguments.sandbox)
    return _inside(wanted, _announced(wanted) or _NOBODY) if arguments.sandbox else wanted


def settings_with_api(arguments: argparse.Namespace) -> Settings:
    """The settings for a command that talks to Clore. Raises Failure where the simulated one does not run."""
    wanted = settings.load(sandbox=arguments.sandbox)
    if not arguments.sandbox:
        return wanted
    url = _announced(wanted)
    if url is None or not _listens(url):
        raise Failure(
            "No simulated marketplace is running.",
            hint="It lives inside `clore-mcp --sandbox`: start that first, in an assistant or another terminal.",
        )
    return _inside(wanted, url)


def command_prefix(arguments: argparse.Namespace) -> str:
    """The words before a command that acts on the same world."""
    return "clore-mcp --sandbox" if arguments.sandbox else "clore-mcp"


def require_spending(wanted: Settings) -> None:
    """Stop here where the operator allows looking only."""
    if wanted.read_only:
        raise ReadOnly(
            "CLORE_READ_ONLY is set, so nothing was changed.", hint="Unset it for this command if you mean it."
        )


def _inside(wanted: Settings, url: str) -> Settings:
    from clore_mcp.cli.serve import SANDBOX_GAP_SECONDS
    from clore_mcp.sandbox import SANDBOX_KEY

    return wanted.with_sandbox(url, SANDBOX_KEY, gap_seconds=SANDBOX_GAP_SECONDS)


def _announced(wanted: Settings) -> str | None:
    """The URL that a running `clore-mcp --sandbox` has left in its state folder."""
    from clore_mcp.cli.serve import SANDBOX_URL_FILE

    try:
        text = (wanted.state_dir / "sandbox" / SANDBOX_URL_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if re.fullmatch(r"http://127\.0\.0\.1:[0-9]{1,5}/v1", text) else None


def _listens(url: str) -> bool:
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    try:
        socket.create_connection(("127.0.0.1", port), timeout=_LISTENS_WITHIN).close()
    except (OSError, OverflowError):
        return False
    return True
