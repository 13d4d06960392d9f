"""What the tests of the client share: a simulated marketplace, a client for it, and its control path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from clore_mcp.clore import CloreClient, Gaps, Pacer, Timing
from clore_mcp.sandbox import SANDBOX_KEY, Options, Running, start_in_thread

MS = 1_000_000
CAPTURES = Path(__file__).parents[2].parent / "shared" / "captures"
QUICK = Timing(backoff_base_seconds=0.001, read_seconds=20, write_seconds=20, create_seconds=20)


def quick_pacer() -> Pacer:
    return Pacer(Gaps(general_ns=MS, create_ns=2 * MS, single_flight_ns=50 * MS), patience_seconds=20)


def canned(answer: Callable[[httpx.Request], httpx.Response], **settings: Any) -> CloreClient:
    """A client whose network is a function."""
    settings = {"api_key": "k" * 32, "timing": QUICK, "pacer": quick_pacer(), **settings}
    return CloreClient(transport=httpx.MockTransport(answer), **settings)


def always(status: int, json: Any = None, **rest: Any) -> CloreClient:
    """A client that gets the same reply to everything."""
    return canned(lambda _: httpx.Response(status, json=json, **rest))


@dataclass
class Sandbox:
    """A running sandbox, with the words that tests use for its control path."""

    running: Running

    @property
    def url(self) -> str:
        return self.running.url

    def control(self, method: str, path: str, json: Any = None) -> Any:
        with httpx.Client(trust_env=False, verify=False) as http:
            reply = http.request(method, f"{self.running.control_url}{path}", json=json, timeout=60)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def fault(self, kind: str, endpoint: str, **more: Any) -> None:
        self.control("POST", "/faults", {"kind": kind, "endpoint": endpoint, **more})

    def options(self, **changes: Any) -> None:
        self.control("POST", "/options", changes)

    def requests(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        told = self.control("GET", "/requests")
        entries: list[dict[str, Any]] = told["requests"] if isinstance(told, dict) else told
        return [entry for entry in entries if endpoint in (None, entry["endpoint"])]

    def client(self, **settings: Any) -> CloreClient:
        settings = {"api_key": SANDBOX_KEY, "timing": QUICK, "pacer": quick_pacer(), **settings}
        return CloreClient(api_url=self.url, **settings)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def _running() -> Iterator[Running]:
    with start_in_thread(Options(servers=120, rate_limit="off", visible_after=0.0, ssh_listener=False)) as running:
        yield running


@pytest.fixture
def sandbox(_running: Running) -> Iterator[Sandbox]:
    box = Sandbox(_running)
    box.control("DELETE", "/requests")
    yield box
    box.control("DELETE", "/faults")
    box.options(rate_limit="off", retry_after=False, interval=1.0, create_interval=5.0)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[CloreClient]:
    async with sandbox.client() as client:
        yield client
