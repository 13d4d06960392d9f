"""`python -m clore_mcp` in milliseconds: forked from one process that has imported the product already.

`python()` is the path of a program that stands for the interpreter. What it is told to run of the product, a watchdog
that a server detaches too, is forked from the ready process, with the caller's files, environment, folder and exit
code; anything else goes to the real interpreter. A caller that is killed takes its process with it, and SIGTERM and
SIGINT are passed on. The real interpreter takes what has a PYTHONPATH of its own; tests of starts, of parents and of
other signals use it too.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import functools
import importlib
import logging
import marshal
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

_STAND_IN: Final = """#!{python} -IS
import os, sys
words = sys.argv[1:]
strict = words[:2] == ["-W", "error"]
rest = words[2:] if strict else words
detached = rest[:2] == ["-P", "-c"] and rest[4:] == ["watchdog", "--detached"]
hooked = os.environ.get("PYTHONPATH", {imports!r}) != {imports!r}  # what is imported otherwise needs a start of its own
if hooked or not detached and rest[:2] != ["-m", "clore_mcp"]:
    os.execv({python!r}, [{python!r}, *words])
import _socket, marshal, signal
line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
line.connect({address!r})
told = marshal.dumps((rest[4:] if detached else rest[2:], strict, detached, os.getcwd(), dict(os.environ)), 4)
files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
line.sendmsg([len(told).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
line.sendall(told)
pid = int.from_bytes(line.recv(8), "big")
if detached:
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
os.close(0), os.close(1), os.close(2)
status = os.waitstatus_to_exitcode(int.from_bytes(line.recv(8), "big"))
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""
_LONGEST_END: Final = 60.0  # s, for what is left at the end of all tests


@functools.cache
def python() -> str:
    """The path of the program that stands for the interpreter; the interpreter's own where nothing can be forked."""
    if sys.platform == "win32":
        return sys.executable
    folder = tempfile.TemporaryDirectory(prefix="clore-mcp-tests-")
    address = f"{folder.name}/line"
    stand_in = Path(folder.name, "python")
    program = _STAND_IN.format(python=sys.executable, address=address, imports=os.environ.get("PYTHONPATH", ""))
    stand_in.write_text(program, encoding="utf-8")
    stand_in.chmod(0o700)
    root = str(Path(__file__).parents[1])
    ready = subprocess.Popen(
        [sys.executable, "-m", "tests.preforked", address, str(stand_in)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, text=True,
    )  # fmt: skip
    assert ready.stdout is not None and ready.stdout.readline() == "ready\n"
    _started.append((ready, folder))
    return str(stand_in)


_started: list[tuple[subprocess.Popen[str], tempfile.TemporaryDirectory[str]]] = []


def end() -> list[str]:
    """End the ready process; what its processes run that have not ended by themselves."""
    left: list[str] = []
    while _started:
        ready, folder = _started.pop()
        left += ready.communicate(timeout=_LONGEST_END + 30)[0].splitlines()
        folder.cleanup()
    python.cache_clear()
    return left


class _Ready:
    """The process that the others are forked from. It has one thread, or a fork could copy a lock that somebody has."""

    def __init__(self, address: str, stand_in: str) -> None:
        _warm(stand_in)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(address)
        self._listener.listen(128)
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._wakes.setblocking(False)
        self._selector = selectors.DefaultSelector()
        for source in (self._listener, self._woken, 0):
            self._selector.register(source, selectors.EVENT_READ)
        self._running: dict[int, tuple[socket.socket | None, list[str]]] = {}

    def serve(self) -> None:
        """Fork until nobody can ask any more, and say what has not ended by then."""
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this one
        print("ready", flush=True)  # noqa: T201 - the answer to who started it
        give_up_at = float("inf")
        while time.monotonic() < give_up_at and (self._running or give_up_at == float("inf")):
            for key, _ in self._selector.select(0.2 if self._running else None):
                if key.fileobj is self._listener:
                    self._fork()
                elif key.fileobj == 0:
                    self._selector.unregister(0)
                    give_up_at = time.monotonic() + _LONGEST_END
                elif key.fileobj is not self._woken:
                    self._left_by(key.fileobj)
            self._collect()
        for pid, (_, words) in self._running.items():
            print(pid, *words)  # noqa: T201 - as above
            os.kill(pid, signal.SIGKILL)

    def _fork(self) -> None:
        line, _ = self._listener.accept()
        length, control, _, _ = line.recvmsg(8, socket.CMSG_SPACE(12))
        files = array.array("i", control[0][2])
        with line.makefile("rb") as told:
            words, strict, detached, folder, environment = marshal.loads(told.read(int.from_bytes(length, "big")))
        pid = os.fork()
        if pid == 0:
            self._become(words, strict, detached, folder, environment, files)
        for file in files:
            os.close(file)
        line.sendall(pid.to_bytes(8, "big"))
        if detached:
            line.close()
        else:
            self._selector.register(line, selectors.EVENT_READ)
        self._running[pid] = (None if detached else line, words)

    def _left_by(self, line: Any) -> None:
        """Whoever waited for a process is gone: killed, as a real one would be."""
        self._selector.unregister(line)
        line.close()
        for pid, (its, words) in self._running.items():
            if its is line:
                os.kill(pid, signal.SIGKILL)
                self._running[pid] = (None, words)
                return

    def _collect(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            line, _ = self._running.pop(pid)
            if line is not None:
                self._selector.unregister(line)
                with contextlib.suppress(OSError):  # it was killed meanwhile
                    line.sendall(status.to_bytes(8, "big"))
                line.close()

    def _become(
        self, words: list[str], strict: bool, detached: bool, folder: str, environment: dict[str, str], files: Any
    ) -> NoReturn:
        """The product's process, from here to its end."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._selector.close()
            for one in (self._listener, self._woken, self._wakes, *(its for its, _ in self._running.values())):
                if one is not None:
                    one.close()
            if detached:
                os.setsid()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            time.tzset()
            sys.argv = ["clore-mcp", *words]
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for the rest of the process
            sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            if strict:
                warnings.simplefilter("error")
            code = _main(words)
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
        except BrokenPipeError:
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


def _main(words: list[str]) -> int:
    from clore_mcp.cli.main import main

    try:
        return main(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _warm(stand_in: str) -> None:
    """Import and build what each process would."""
    import clore_mcp
    from clore_mcp import server, watchdog_process
    from clore_mcp.settings import Settings

    for module in pkgutil.walk_packages(clore_mcp.__path__, "clore_mcp."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("jsonschema", "httpcore2", "anyio._backends._asyncio", "concurrent.futures.thread", "encodings.idna"):
        importlib.import_module(name)
    watchdog_process.sys = SimpleNamespace(executable=stand_in, platform=sys.platform)  # type: ignore[attr-defined, assignment]
    chosen = server.chosen_tools
    built: dict[Any, Any] = {}

    def chosen_tools(settings: Settings) -> Any:
        key = (frozenset(settings.toolsets), settings.read_only)
        if key not in built:
            built[key] = chosen(settings)
        return built[key]

    server.chosen_tools = chosen_tools
    settings = Settings.from_env({}, home=Path(), config_dir=Path(), state_dir_default=Path())
    asyncio.run(_probe(settings))
    for handler in logging.root.handlers[:]:
        logging.root.removeHandler(handler)
    logging.root.setLevel(logging.WARNING)


async def _probe(settings: Any) -> None:
    from mcp import Client

    from clore_mcp.server import create_server

    for era in ("auto", "legacy"):
        async with Client(create_server(settings), mode=era) as client:
            await client.list_tools()


if __name__ == "__main__":
    import gc

    ready = _Ready(*sys.argv[1:])
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()
    ready.serve()
