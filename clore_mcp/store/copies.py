"""Replies that the processes of one state folder share, as private files: a request saved is worth more than a file.

A copy is used only where it is whole, of the same API URL and key, and from an instant that both clocks of this machine
place in the past. Whatever is wrong with one, there is none; what can't be kept is not kept. Nothing here fails for it.

Everything blocks for the disk: call it on a worker thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clore_mcp.store.file_lock import LockTry, try_turn

log = logging.getLogger(__name__)

_FORMAT: Final = "clore-mcp copy 1"
_SLACK_SECONDS: Final = 1.0  # clocks are slewed a little all the time; more ahead of now is from the future
_KEPT_SECONDS: Final = 86_400.0
_SWEEP_SECONDS: Final = 3_600.0
_MARK: Final = "changes"
_MARK_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment on both clocks of this machine: one jumps when it is set, the other stands still in sleep."""

    wall: float  # unix seconds
    monotonic: float  # seconds; one clock for all processes until the machine restarts

    def before(self, seconds: float) -> Instant:
        """So much earlier."""
        return Instant(self.wall - seconds, self.monotonic - seconds)

    def reaches(self, since: Instant) -> bool:
        """Whether no clock places it before `since`."""
        return self.wall >= since.wall and self.monotonic >= since.monotonic

    def age(self, now: Instant) -> float | None:
        """Seconds: the larger of what the clocks say, so neither one set back nor a restart makes anything young. None
        where it lies in the future."""
        ages = now.wall - self.wall, now.monotonic - self.monotonic
        return max(0.0, *ages) if min(ages) >= -_SLACK_SECONDS else None


@dataclass(frozen=True, slots=True)
class Copy:
    """A reply's body, when it was asked for, and the mark of changes that stood then."""

    body: bytes
    asked: Instant
    mark: str


def owner_of(api_url: str, api_key: str | None) -> str:
    """Whose copies they are: a digest of the API URL and the key, which is all of the key that is ever on disk."""
    text = f"clore-mcp copies|{api_url.rstrip('/')}|{api_key or ''}"
    return hashlib.sha256(text.encode()).hexdigest()


class Copies:
    """The copies of one owner in one folder. Building one touches nothing; `wall` and `monotonic` are in seconds."""

    def __init__(self, folder: Path, owner: str, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._owner = owner
        self._wall = wall
        self._monotonic = monotonic
        self._made = False
        self._swept: float | None = None

    def now(self) -> Instant:
        """This instant."""
        return Instant(self._wall(), self._monotonic())

    def find(self, what: str) -> Copy | None:
        """The copy of that name, if there is one and nothing is wrong with it."""
        try:
            return self._read(what, self._path(what).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("no copy of %s: %s", what, error)
            return None

    def keep(self, what: str, copy: Copy) -> bool:
        """Put it in the place of the one before, whole or not at all; whether that was possible."""
        header = {
            "what": what,
            "owner": self._owner,
            "wall": copy.asked.wall,
            "monotonic": copy.asked.monotonic,
            "mark": copy.mark,
        }
        signed = json.dumps(header).encode() + b"\n" + copy.body
        kept = self._replace(self._path(what), f"{_FORMAT} {hashlib.sha256(signed).hexdigest()}\n".encode() + signed)
        self._sweep()
        return kept

    def mark(self) -> str:
        """What `change` last wrote: a copy that was asked for under another mark is from before a change."""
        try:
            with self._folder.joinpath(_MARK).open("rb") as file:
                return file.read(_MARK_LENGTH).hex()
        except OSError:
            return ""

    def change(self) -> None:
        """Something was written at Clore, by whatever account: what was asked until now is true no more."""
        if not self._replace(self._folder / _MARK, secrets.token_bytes(16)):
            for path in self._files():  # a full disk still lets files go
                if path.name == _MARK or path.suffix == ".copy":
                    _remove(path)

    def turn(self, what: str) -> LockTry | None:
        """A try to be the one who fetches it; None where nobody can take turns."""
        try:
            self._make()
            return try_turn(self._path(what).with_suffix(".lock"), self._monotonic())
        except OSError as error:
            log.debug("no turns for %s: %s", what, error)
            return None

    def _path(self, what: str) -> Path:
        return self._folder / f"{what}-{self._owner[:16]}.copy"

    def _read(self, what: str, content: bytes) -> Copy:
        title, _, signed = content.partition(b"\n")
        if title != f"{_FORMAT} {hashlib.sha256(signed).hexdigest()}".encode():
            raise ValueError("it is damaged, or of another version")
        line, _, body = signed.partition(b"\n")
        header: dict[str, Any] = json.loads(line)
        if (header["what"], header["owner"]) != (what, self._owner):
            raise ValueError("it is another's")
        return Copy(body, Instant(float(header["wall"]), float(header["monotonic"])), str(header["mark"]))

    def _replace(self, path: Path, content: bytes) -> bool:
        temporary = None
        try:
            self._make()
            descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self._folder)  # for us alone
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)  # Windows refuses while somebody reads the old one
        except OSError as error:
            log.debug("%s can't be kept: %s", path.name, error)
            if temporary is not None:
                _remove(Path(temporary))
            return False
        return True

    def _make(self) -> None:
        """The folders, for us alone. The state's own is made once: deleted under us, it is not begun again for this."""
        if not self._made:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._made = True
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def _sweep(self) -> None:
        """Now and then, drop what nobody touched for a day: copies of another key, what a killed process left."""
        now = self._monotonic()
        if self._swept is not None and now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        for path in self._files():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _KEPT_SECONDS:  # the clock that dates files
                    path.unlink()

    def _files(self) -> list[Path]:
        try:
            return list(self._folder.iterdir())
        except OSError:
            return []


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
