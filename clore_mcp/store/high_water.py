"""How many yeses were used or taken back, kept apart from the state: one that knows of fewer is an older copy of it.

A yes serves once. A state that was restored from a backup would hold one that has ended since, so what waits in it
lapses. The mark is a number in the user's cache folder, by a digest of the state's path.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
from pathlib import Path

log = logging.getLogger(__name__)


class HighWater:
    """The mark of one state folder. Building one touches nothing; where it can't be kept or read, there is none."""

    def __init__(self, cache_dir: Path, state_dir: Path) -> None:
        name = hashlib.sha256(os.fsencode(state_dir.absolute())).hexdigest()[:32]
        self._path = cache_dir / "used" / name

    def read(self) -> int:
        """The number of yeses that have ended as far as the mark knows."""
        try:
            return int(self._path.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def raise_to(self, ended: int) -> None:
        """Remember that so many have ended; never fewer than before."""
        if ended <= self.read():
            return
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(str(ended), "ascii")
            draft.replace(self._path)
        except OSError as error:
            log.warning("the number of used approvals can't be kept apart from the state: %s", error.strerror)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
