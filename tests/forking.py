"""Processes of their own that start in milliseconds: forked from a server that has imported the product already."""

from __future__ import annotations

import functools
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

_PROC: Final = Path("/proc")


def forked(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """A process that runs `target(pipe, *arguments)`, and our end of its pipe, which ends with it."""
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return process, ours


@functools.cache
def _context() -> Any:
    if sys.platform == "win32":
        raise NotImplementedError("there is nothing to fork from")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.machine.warm"])
    return context


def stands_still(pid: int) -> bool:
    """Whether a process is stopped, or is no more."""
    if not _PROC.is_dir():
        found = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip()[:1] in ("", "T", "Z")
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] in "TZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
