"""Whether another process of this state can act now, which a heartbeat in the state says only of the past.

Who asks puts a file with the other's name into a folder; the other looks there twice a second and takes it away. A
frozen process, or one that was killed, takes none. Works alike wherever files do, and writes nothing while nobody asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = "pulse"
_TICK_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.05
_LOOKS: Final = 60  # three seconds, or six ticks: on a busy machine an event loop comes late
_COUNTS_SECONDS: Final = 30.0  # so long an answer counts: longer than from the evidence to the claim of a send
_FRESH_SECONDS: Final = 5.0  # so long nobody is asked again who has answered
_SILENT_SECONDS: Final = 10.0  # and who has not: a frozen one costs a call its wait once
_LEFT_SECONDS: Final = 86_400.0  # a question that old is that of a process which was killed over it


class Pulse:
    """The pulse of the process named `owner`, and what it felt of others."""

    def __init__(self, folder: Path, owner: str, monotonic: Callable[[], float]) -> None:
        self._folder = folder / FOLDER
        self._owner = owner
        self._monotonic = monotonic
        self._answers: dict[str, float] = {}
        self._silences: dict[str, float] = {}

    def answered(self, owner: str) -> bool:
        """Whether that process has answered within half a minute. Never waits; this one need not be asked."""
        return owner == self._owner or self._since(self._answers, owner) < _COUNTS_SECONDS

    async def ask(self, owners: Iterable[str]) -> None:
        """Ask those who have not just answered, or been silent; takes seconds where one does not answer."""
        wanted = [
            owner
            for owner in owners
            if owner != self._owner
            and self._since(self._answers, owner) > _FRESH_SECONDS
            and self._since(self._silences, owner) > _SILENT_SECONDS
        ]
        await asyncio.gather(*map(self._ask, wanted))

    async def keep(self, able: Callable[[], Awaitable[bool]]) -> None:
        """Answer for as long as this process lives and is `able` to do what it is asked for."""
        while True:
            with contextlib.suppress(OSError):
                asked = self._questions()
                if asked and await able():
                    for question in asked:
                        question.unlink(missing_ok=True)
            await asyncio.sleep(_TICK_SECONDS)

    def _since(self, when: dict[str, float], owner: str) -> float:
        return self._monotonic() - when.get(owner, float("-inf"))

    async def _ask(self, owner: str) -> None:
        question = self._folder / f"{owner}.{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            question.touch(mode=0o600, exist_ok=False)
        except OSError:  # no state, or no room: nobody can be asked, so nobody has answered
            self._silences[owner] = self._monotonic()
            return
        try:
            for _ in range(_LOOKS):
                if not question.exists():
                    break
                await asyncio.sleep(_LOOK_SECONDS)
            silent = question.exists()
        finally:
            with contextlib.suppress(OSError):
                question.unlink()
        (self._silences if silent else self._answers)[owner] = self._monotonic()
        if silent:
            self._answers.pop(owner, None)

    def _questions(self) -> list[Path]:
        """Those for this process; what has lain there for a day is swept away."""
        mine = []
        for question in self._folder.iterdir():
            if question.stem == self._owner:
                mine.append(question)
            elif time.time() - question.stat().st_mtime > _LEFT_SECONDS:
                question.unlink(missing_ok=True)
        return mine
