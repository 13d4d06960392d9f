"""The environment of the peers that clore-mcp is compared with. They are installed apart from it, never as
dependencies."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "clore-ai",
    "fastmcp",
    "aiolimiter",
    "pyrate-limiter",
    "filelock",  # for pyrate-limiter's shared file
)
_INSTALLED: Final = "installed"  # written last, so that a broken installation is repeated
_INSTALL_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Peers:
    """The interpreter that has the peers, or the reason why there is none."""

    python: Path | None
    versions: str = ""
    missing: str = ""


def install(folder: Path) -> Peers:
    """Return the peers in a virtual environment in that folder, installed there if needed. It needs PyPI once."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    mark = folder / _INSTALLED
    pip = (str(python), "-m", "pip", "--disable-pip-version-check")
    try:
        if not mark.exists():
            venv.create(folder, with_pip=True, clear=folder.exists())
            command = [*pip, "install", "-q", "--retries", "1", *PACKAGES]
            subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_SECONDS)
            mark.touch()
        frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, timeout=_INSTALL_SECONDS, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Peers(None, missing=f"the peers could not be installed ({type(error).__name__}: is PyPI in reach?)")
    named = [line.replace("==", " ") for line in frozen.stdout.splitlines() if line.split("==")[0] in PACKAGES]
    return Peers(python, ", ".join(named))
