"""The client processes as the machine holds them: started quickly, commanded, killed, stopped and resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any, Final

from tests.forking import forked, stands_still
from tests.machine.child import Birth, Role, main
from tests.machine.halts import Halt

ROLES: Final = (
    Role("alpha", era="auto", asks=True),
    Role("alpha", era="auto", asks=True),
    Role("beta", era="legacy", asks=True),
    Role("mute", era="auto", asks=False),
    Role("outsider", era="legacy", asks=True, mode="outside"),
    Role("limited", era="auto", asks=True, mode="limits"),
)
"""Two processes of one caller, another caller, one that can't be asked, and the other two approval modes."""
OUTSIDER: Final = 4

_START_SECONDS: Final = 60.0
_GONE_SECONDS: Final = 60.0
_BUSY_SECONDS: Final = 60.0  # no call takes this long, even on a busy machine
_LOOK_SECONDS: Final = 0.002

DatedReply = Callable[["Client", dict[str, Any]], None]


class Stuck(RuntimeError):
    """A process did not do in time what it normally does at once: the machine is broken, or the product hangs."""


class Client:
    """One process. `state`: idle, busy (a call is under way), asking (its person is), stopped, or dead."""

    def __init__(self, role: Role, birth: Birth) -> None:
        self.role = role
        self.state = "busy"
        self.resumes_as = "busy"
        self.busy_since = time.monotonic()
        self.call: dict[str, Any] = {}
        self.question = ""  # what its person reads
        self.can_ask = role.asks and role.mode == "ask"  # until it answers a question with an error
        self.process, self.pipe = forked(main, birth)

    @property
    def name(self) -> str:
        return f"{self.role.name}/{self.role.era}"

    def say(self, **what: Any) -> None:
        self.busy_since = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(what)

    def begin(self, **call: Any) -> None:
        """Make a tool call in it."""
        self.state, self.call = "busy", call
        self.say(do="call", **call)

    def poll(self, halt: Halt | None = None) -> None:
        """Make it check its leases and the watches, as it would each minute."""
        self.state, self.call = "busy", {"tool": "poll", "halt": halt}
        self.say(do="poll", halt=halt)

    def end_all(self, halt: Halt | None) -> None:
        """Make it end everything made here, as `clore-mcp stop` does once spending is frozen."""
        self.state, self.call = "busy", {"tool": "end_all", "halt": halt}
        self.say(do="end_all", halt=halt)

    def answer(self, answer: str) -> None:
        """Give the delayed answer of its person."""
        self.state = "busy"
        self.can_ask = self.can_ask and answer != "error"
        self.say(do="answer", answer=answer)

    def leave(self) -> None:
        """Let it exit cleanly."""
        self.state, self.call = "busy", {"tool": "leave"}
        self.say(do="leave")

    def stop(self) -> None:
        """Stop it where it is."""
        self._signal(signal.SIGSTOP)
        self.resumes_as, self.state = self.state, "stopped"
        self.await_stopped()

    def becomes(self, state: str) -> None:
        """Set its state. If it is stopped, this is the state in which it resumes."""
        if self.state == "stopped":
            self.resumes_as = state
        else:
            self.state = state

    def await_stopped(self) -> None:
        """Wait until it has really stopped, because an earlier SIGCONT would be lost."""
        until = time.monotonic() + _GONE_SECONDS
        while not stands_still(self.process.pid or 0):
            self.require_time(until, "did not stop")
            time.sleep(_LOOK_SECONDS)

    def resume(self) -> None:
        """Resume it."""
        self.state, self.busy_since = self.resumes_as, time.monotonic()
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone."""
        if self.state != "gone":
            self._signal(signal.SIGKILL)
            self.bury()

    def bury(self) -> None:
        """Wait until it has exited. Raises Stuck."""
        self.process.join(_GONE_SECONDS)
        if self.process.exitcode is None:
            raise Stuck(f"{self} did not end")
        self.state = "dead"

    def require_time(self, until: float, what: str) -> None:
        """Raise Stuck after that time."""
        if time.monotonic() > until:
            raise Stuck(f"{self} {what} in time")

    def __str__(self) -> str:
        return f"process {self.process.pid} ({self.name}, {self.state}, at {self.call.get('tool')})"

    def close(self) -> None:
        """Kill it and close its pipe."""
        self.kill()
        self.pipe.close()
        self.process.close()
        self.state = "gone"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process.pid is not None:
                os.kill(self.process.pid, number)


def listen(clients: Sequence[Client], heard: DatedReply, *, seconds: float) -> None:
    """Handle the processes' messages until none is busy or the time is over. Raises Stuck."""
    until = time.monotonic() + seconds
    while True:
        busy = [one for one in clients if one.state == "busy"]
        left = until - time.monotonic()
        ready = wait([one.pipe for one in clients if one.state not in ("dead", "gone")], max(0.0, left) if busy else 0)
        for one in busy:
            one.require_time(one.busy_since + _BUSY_SECONDS, "came to no end")
        if not ready and (not busy or left <= 0):
            return
        for one in clients:
            if one.pipe in ready:
                _take(one, heard)


def _take(client: Client, heard: DatedReply) -> None:
    try:
        event = client.pipe.recv()
    except (EOFError, OSError):  # the other end of the pipe is closed, perhaps in the middle of a message
        client.bury()
        return
    match event["event"]:
        case "ready" | "done":
            client.becomes("idle")
        case "asked" if event["answer"] == "later":
            client.becomes("asking")
        case "halting" if client.state == "stopped":  # also stopped from outside: two stops would need two signals
            client.kill()
        case "halting":
            client.resumes_as, client.state = "busy", "stopped"
            _until_halted(client)
    heard(client, event)


def _until_halted(client: Client) -> None:
    """Wait until it has stopped or died, which it announces just before."""
    if client.call["halt"].kill:
        client.bury()
    else:
        client.await_stopped()


def alive(clients: Sequence[Client]) -> list[Client]:
    """Return the processes that could do something."""
    return [one for one in clients if one.state in ("idle", "busy", "asking")]


def start(role: Role, birth: Birth) -> Client:
    """Return a process that is ready for commands. Raises Stuck."""
    client = Client(role, birth)
    if not client.pipe.poll(_START_SECONDS):
        said = f"{client} did not start"
        client.close()
        raise Stuck(said)
    _take(client, lambda *_: None)
    return client
