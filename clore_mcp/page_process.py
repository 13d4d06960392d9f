"""Starts and finds the person's page. One process serves it for each state and key, like the watchdog.

A process that wants the page shown leaves a request in the state folder, and the page's process answers it there. So
the server needs no browser, no socket and no secret: the process that serves the page also opens it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from clore_mcp.errors import StateUnavailable
from clore_mcp.settings import Page, Settings
from clore_mcp.store.folder import Place, open_own
from clore_mcp.watchdog_process import start_apart

log = logging.getLogger(__name__)

LOG_NAME: Final = "page.log"
FOLDER: Final = "page"
_STARTS_WITHIN_SECONDS: Final = 15.0
_ANSWERS_WITHIN_SECONDS: Final = 6.0
_LOOK_SECONDS: Final = 0.05
_DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")
_FROM_AFAR: Final = ("SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request to the page's process: show a page that begins at `to`, opened in the browser or only named.
    `registers`: a person who comes through it may register a passkey."""

    to: str = ""
    opens: bool = True
    registers: bool = False


@dataclass(frozen=True, slots=True)
class PageReply:
    """Whether the person has the page in front of them, and its address, which works once and only if it was not
    opened."""

    shown: bool
    address: str = ""


def place_of(wanted: Settings) -> Place:
    """Return the place that the one page of this state and key holds while it lives."""
    return Place(wanted.state_dir / f"page-{wanted.key_name[:16]}.lock")


def requests_folder(wanted: Settings) -> Path:
    """Return the folder for requests to the page of this state and key."""
    return wanted.state_dir / FOLDER / wanted.key_name[:16]


def has_display(env: Mapping[str, str]) -> bool:
    """Return whether a browser that is opened here can be in front of a person."""
    if any(env.get(name) for name in _FROM_AFAR):
        return False
    return sys.platform in ("win32", "darwin") or any(env.get(name) for name in _DISPLAYS)


class PageOpener:
    """Shows the person questions by their ids, each once and never in a second tab: in this machine's browser, or by an
    address that the client offers them. Failures are only logged."""

    def __init__(self, wanted: Settings) -> None:
        self._wanted = wanted
        self._shown: set[str] = set()
        self._refused: set[str] = set()

    @property
    def may(self) -> bool:
        """Whether a page that opens here can be in front of the person, and the operator allows it."""
        return self._wanted.page is Page.AUTO and not self._wanted.read_only and has_display(os.environ)

    def show(self, quote_id: str) -> bool:
        """Show a question and return whether the person has it in front of them. Takes seconds; call it on a worker
        thread."""
        if not self.may or quote_id in self._refused:
            return False
        with _logged("the person's page could not be opened: %s"):
            if quote_id in self._shown:
                return is_running(self._wanted)
            reply = ask(self._wanted, PageRequest(to=f"approvals/{quote_id}"))
            if reply is not None and reply.shown:
                self._shown.add(quote_id)
                return True
        return False

    def address(self, quote_id: str) -> str | None:
        """Return the address of a question for a browser that is signed in. A client may offer it once. It holds no
        secret."""
        if not self.may or quote_id in self._shown | self._refused:
            return None
        with _logged("the person's page could not be started: %s"):
            reply = ask(self._wanted, PageRequest(to=f"approvals/{quote_id}", opens=False))
            if reply is not None:
                self._shown.add(quote_id)
                before, _, _ = reply.address.rpartition("enter/")
                return f"{before}approvals/{quote_id}"
        return None

    def refuse(self, quote_id: str) -> None:
        """Record that the person did not want to go there. No page is opened for that question."""
        self._shown.discard(quote_id)
        self._refused.add(quote_id)


@contextlib.contextmanager
def _logged(message: str) -> Iterator[None]:
    """Log a failure to ask for the page, instead of raising it."""
    try:
        yield
    except (OSError, StateUnavailable, subprocess.SubprocessError) as error:
        log.warning(message, error)


def is_running(wanted: Settings) -> bool:
    """Return whether a page's process runs for this state and key. Raises StateUnavailable."""
    place = place_of(wanted)
    if not place.take():
        return True
    place.release()
    return False


def ask(wanted: Settings, request: PageRequest) -> PageReply | None:
    """Send a request to the page's process, started if none runs, and return its reply, or None if it does not
    answer."""
    wanted.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = requests_folder(wanted)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_running(wanted):
        sandbox = wanted.api_key_source == "sandbox"  # its state is a folder in the state folder that is named
        words = ["page", "--detached", *(["--sandbox"] if sandbox else [])]
        start_apart(words, wanted.state_dir.parent if sandbox else wanted.state_dir, LOG_NAME)
    return ask_running(folder, request)


def ask_running(folder: Path, request: PageRequest) -> PageReply | None:
    """Send a request to the page's process that reads that folder. Return its reply, or None if it does not answer."""
    name = secrets.token_hex(8)
    _write(folder / f"{name}.ask", request)
    until = time.monotonic() + _STARTS_WITHIN_SECONDS + _ANSWERS_WITHIN_SECONDS
    answer = folder / f"{name}.answer"
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            found = json.loads(answer.read_text("utf-8"))
            answer.unlink(missing_ok=True)
            return PageReply(bool(found["shown"]), str(found["address"]))
        time.sleep(_LOOK_SECONDS)
    (folder / f"{name}.ask").unlink(missing_ok=True)
    return None


def take_requests(folder: Path) -> list[tuple[str, PageRequest]]:
    """Take the waiting requests out of the folder, and return each with the name to answer it by."""
    found = []
    for path in sorted(folder.glob("*.ask")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = json.loads(path.read_text("utf-8"))
            path.unlink()
            request = PageRequest(str(told["to"]), bool(told["opens"]), bool(told["registers"]))
            found.append((path.stem, request))
    return found


def answer_request(folder: Path, name: str, reply: PageReply) -> None:
    """Answer a request. Raises OSError."""
    _write(folder / f"{name}.answer", reply)


def _write(path: Path, told: PageRequest | PageReply) -> None:
    """Write a private file atomically."""
    draft = path.with_suffix(".draft")
    with os.fdopen(open_own(draft, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as file:
        json.dump(asdict(told), file)
    draft.replace(path)
