"""The tour's connection: the real server as a child process, with a folder of its own that is removed at the end.

Ctrl-C, `q` and a step that failed all leave by the same door: the client closes the server's stdin and waits for its
end.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Final, TextIO

import anyio
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.types import Implementation

from clore_mcp import __version__
from clore_mcp.cli.demo_guide import Broken, Guide, Interrupted, Left, TourStopped
from clore_mcp.cli.demo_market import DemoMarket
from clore_mcp.cli.demo_screen import Screen
from clore_mcp.cli.demo_tour import Tour

_PATIENCE_SECONDS: Final = 90.0
_LOG_SHOWN: Final = 8
# A made-up public key that has no private half, so that the tour neither needs nor touches anyone's ~/.ssh.
_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNsb3JlLW1jcCBkZW1vLCBhIGtleSBvZiBub2JvZHkh demo"


def give_tour(*, yes: bool) -> int:
    """Run the tour; its exit code."""
    logging.getLogger("mcp").addHandler(logging.NullHandler())  # the SDK's notes must not garble the tour
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="clore-demo-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "server.log")
        try:
            with log.open("w", encoding="utf-8") as errors:
                anyio.run(_connected, screen, Path(folder), errors, yes)
        except KeyboardInterrupt:
            stop: TourStopped = Interrupted()
        except TourStopped as stopped:
            stop = stopped
        else:
            return 0
        _part(screen, stop, log)
    return stop.code


async def _connected(screen: Screen, folder: Path, errors: TextIO, yes: bool) -> None:
    """Start the server, give the tour, end the server. Raises how it ended, if not at its last step."""
    guide = Guide(screen, yes=yes)
    tour = Tour(guide, DemoMarket(_state_dir(folder)))
    tour.welcome()
    stop: TourStopped | None = None
    try:
        async with Client(
            stdio_client(_server(folder), errlog=errors),
            elicitation_callback=guide.answer,
            read_timeout_seconds=_PATIENCE_SECONDS,
            client_info=Implementation(name="clore-mcp demo", version=__version__),
        ) as client:
            try:
                await tour.give(client)
            except TourStopped as stopped:  # raised again outside, where no task group wraps it
                stop = stopped
    except (MCPError, OSError, ExceptionGroup) as error:
        stop = stop or Broken(f"{guide.step}: the connection to the server failed: {_innermost(error)}")
    finally:
        screen.idle()
    if stop is not None:
        raise stop
    tour.goodbye()


def _server(folder: Path) -> StdioServerParameters:
    """The real server with a simulated market, in folders of its own, with next to nothing of our environment."""
    home = folder / "home"
    home.mkdir()
    folders = (
        "HOME",
        "USERPROFILE",
        "APPDATA",
        "LOCALAPPDATA",
        "WIN_PD_OVERRIDE_APPDATA",
        "WIN_PD_OVERRIDE_LOCAL_APPDATA",
    )
    env = dict.fromkeys(folders, str(home))
    env["CLORE_STATE_DIR"] = str(_state_dir(folder))
    env["CLORE_SSH_PUBLIC_KEY"] = _KEY
    if "PYTHONPATH" in os.environ:
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return StdioServerParameters(command=sys.executable, args=["-m", "clore_mcp", "--sandbox"], env=env)


def _state_dir(folder: Path) -> Path:
    return folder / "state"


def _innermost(error: BaseException) -> BaseException:
    """What really happened, without the task groups round it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _part(screen: Screen, stop: TourStopped, log: Path) -> None:
    """Say why the tour ends here."""
    screen.idle()
    if isinstance(stop, Broken):
        print(f"\nclore-mcp demo: {stop}", file=sys.stderr)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in [line for line in lines if line.strip(" |^")][-_LOG_SHOWN:]:
            print(f"  server: {line}", file=sys.stderr)
        return
    screen.gap()
    screen.say("The tour ends here. The simulated market is gone, and all that ran in it. Nothing was spent.")
    if isinstance(stop, Left):
        screen.say("Come back any time: clore-mcp demo")
