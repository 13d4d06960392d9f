"""One client in a process of its own, told what to call; the other end of `programs/lines.py`."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]
PATIENCE_SECONDS: Final = 100.0
_ASKS: Final = "Type yes to approve:"


class Client:
    """A connected client, and the person who answers what it asks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.asked: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def ready(self) -> Json:
        """Which version it is and the tools that it sees."""
        seen: Json = self._take("ready")
        return seen

    def call(self, tool: str, *answers: bool, **arguments: Any) -> Json:
        """What a model would read; the questions on the way get these answers."""
        self._say(json.dumps({"tool": tool, "arguments": arguments}))
        told: Json = self._take("result", *answers)
        return told

    def leave(self) -> None:
        """Nothing more to do: it closes the connection and ends by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(PATIENCE_SECONDS) == 0

    def _take(self, what: str, *answers: bool) -> Any:
        left = list(answers)
        question: list[str] = []
        while (line := self._lines.get(timeout=PATIENCE_SECONDS)) is not None:
            if line.startswith("{"):
                assert not left, "it asked less than it should"
                return json.loads(line)[what]
            if line == _ASKS:
                self.asked.append("\n".join(question))
                question = []
                self._say("yes" if left.pop(0) else "no")
            else:
                question.append(line)
        raise AssertionError(f"the client has ended with {self._process.wait(PATIENCE_SECONDS)}: {question}")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


@contextmanager
def driven(program: Sequence[str], more: Sequence[str], server_env: Json, home: Path, cwd: Path) -> Iterator[Client]:
    """A client's program that starts our server; both are gone at the end."""
    server = {"command": sys.executable, "args": ["-W", "ignore", "-m", "clore_mcp"], "env": server_env}
    env = {"HOME": str(home), "PATH": str(Path(program[0]).parent), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*program, json.dumps(server), *more], env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, encoding="utf-8",
    )  # fmt: skip
    try:
        yield Client(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_SECONDS)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
