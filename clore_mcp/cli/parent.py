"""Whether the process that started this one still lives."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def watched_parent() -> Callable[[], bool]:
    """Returns what tells whether the process that is our parent now lives."""
    parent = os.getppid()
    if sys.platform != "win32":
        return lambda: os.getppid() == parent  # an orphan gets another
    import ctypes  # pragma: no cover - there the number stays the same, whoever has it by then

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.WaitForSingleObject.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    synchronize, timed_out = 0x00100000, 0x102
    handle = kernel.OpenProcess(synchronize, False, parent)  # kept open to our end: the number is not given away
    return lambda: not handle or kernel.WaitForSingleObject(handle, 0) == timed_out
