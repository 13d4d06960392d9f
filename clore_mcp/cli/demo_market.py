"""The tour's hand in the simulated market: there nobody else moves prices."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio.to_thread

from clore_mcp.cli.serve import SANDBOX_URL_FILE

_PATIENCE_SECONDS: Final = 10.0


class DemoMarket:
    """The control path of the market inside `clore-mcp --sandbox`, which tells in `state_dir` where it listens."""

    def __init__(self, state_dir: Path) -> None:
        self._url_file = state_dir / "sandbox" / SANDBOX_URL_FILE

    async def move_price(self, server_id: int, factor: float) -> None:
        """Multiply every price of a server. Raises OSError, HTTPException or ValueError where that fails."""
        await anyio.to_thread.run_sync(self._post, f"/_sandbox/servers/{server_id}", {"price_factor": factor})

    def _post(self, path: str, body: dict[str, float]) -> None:
        where = urlsplit(self._url_file.read_text(encoding="utf-8").strip()).netloc
        connection = http.client.HTTPConnection(where, timeout=_PATIENCE_SECONDS)  # loopback, past any proxy
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != 200:
            raise ValueError(f"the simulated market answered {status}")
