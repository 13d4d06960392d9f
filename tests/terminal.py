"""Commands at a pseudo-terminal, as a person types them."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import pytest

PATIENCE: Final = 60.0


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str = ""


class Terminal:
    """A process whose stdin, stdout and stderr are one pseudo-terminal."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        if sys.platform == "win32":
            pytest.skip("pseudo-terminals are a POSIX thing")
        import fcntl
        import pty
        import struct
        import termios

        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {name: value for name, value in env.items() if name != "COLUMNS"} | {"TERM": "xterm-256color"}
        self._process = subprocess.Popen(
            command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._ours)

    def expect(self, text: str, *, after: str = "") -> None:
        """Read until the text is on the screen, below `after`."""

        def shown() -> bool:
            begin = self.seen.find(after)
            return begin >= 0 and text in self.seen[begin:]

        self._read(shown)
        assert shown(), self.seen

    def type(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def end(self) -> Done:
        """Read to the end and return the result, with wrapped lines joined."""
        self._read(lambda: False)
        code = self._process.wait(PATIENCE)
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.seen)
        assert "Traceback" not in text, text
        return Done(code, re.sub(r"\s*\r\n\s*", " ", text))

    def _read(self, enough: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + PATIENCE
        while not enough() and time.monotonic() < give_up_at:
            ready, _, _ = select.select([self._ours], [], [], 0.1)
            try:
                chunk = os.read(self._ours, 65_536) if ready else None
            except OSError:  # Linux raises EIO when the last writer has gone
                return
            if chunk == b"":
                return
            self.seen += (chunk or b"").decode(errors="replace")
