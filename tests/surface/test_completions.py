"""Completion: what is offered for each argument, in which order, and that it never fails, floods or waits."""

from __future__ import annotations

import time
from typing import Any

import pytest
from mcp import Client
from mcp.types import PromptReference, ResourceTemplateReference

from clore_mcp import completions
from clore_mcp.clore import CloreClient
from clore_mcp.completions import matching
from clore_mcp.errors import TimedOut
from clore_mcp.market.regions import codes
from clore_mcp.rental.containers import SHORT_NAMES
from clore_mcp.sandbox import Running

from .conftest import Connect, Mode, call, control, rent, requests_sent

PROMPT = PromptReference(name="rent-cheapest")


async def complete(client: Client, name: str, value: str, prompt: str = "rent-cheapest") -> list[str]:
    """The values offered; at most a hundred, and the total is honest about the rest."""
    found = (await client.complete(PromptReference(name=prompt), {"name": name, "value": value})).completion
    assert len(found.values) <= completions.MOST
    assert bool(found.has_more) == ((found.total or 0) > len(found.values))
    return found.values


@pytest.mark.anyio
async def test_gpus_are_the_markets_most_common_first(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        everything = await complete(client, "gpu", "")
        narrowed = await complete(client, "gpu", "rtx40")
        inside = await complete(client, "gpu", "4090")
        nothing = await complete(client, "gpu", "voodoo 2")
    assert everything[0] == "RTX 4090"
    assert narrowed == [model for model in everything if model.startswith("RTX 40")]
    assert len(narrowed) > 2 and narrowed[0] == "RTX 4090"
    assert inside[0] == "RTX 4090" and all("4090" in model for model in inside)
    assert nothing == []


@pytest.mark.anyio
async def test_gpus_cost_one_request_and_then_none(connect: Connect, sandbox: Running) -> None:
    async with connect() as client:
        await client.list_prompts()
        control(sandbox, "DELETE", "/requests")
        for typed in ("R", "RT", "RTX", "RTX 3"):
            await complete(client, "gpu", typed)
        assert requests_sent(sandbox) == ["marketplace"]


@pytest.mark.anyio
async def test_countries_and_regions_are_offered_and_are_all_accepted_by_search(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        everything = await complete(client, "countries", "")
        assert await complete(client, "countries", "eur") == ["europe"]
        assert (await complete(client, "countries", "d"))[:3] == ["dach", "DE", "DJ"]
        assert await complete(client, "countries", "Germany") == ["DE"]
        assert await complete(client, "countries", "DE,north am") == ["DE, north-america"]
        assert await complete(client, "countries", "\x00Ω") == []
        found = await call(client, "search_servers", countries=["DE, north-america"], limit=1)
    assert codes(everything)
    assert found["total_matches"] >= 0


@pytest.mark.anyio
async def test_images_are_the_short_names_and_the_known_ones(connect: Connect, mode: Mode, sandbox: Running) -> None:
    async with connect(mode) as client:
        assert (await complete(client, "image", ""))[:2] == ["jupyter", "ubuntu"]
        assert await complete(client, "image", "torch") == ["pytorch", "cloreai/torch:2.0.1"]
        assert await complete(client, "image", "22.04") == [SHORT_NAMES["ubuntu"].image, SHORT_NAMES["cuda"].image]
    assert requests_sent(sandbox) == []


@pytest.mark.anyio
async def test_order_ids_are_the_current_orders_for_prompts_and_templates(
    connect: Connect, mode: Mode, sandbox: Running
) -> None:
    template = ResourceTemplateReference(uri="clore://orders/{order_id}/ssh-config")
    async with connect(mode) as client:
        assert await complete(client, "order_id", "", "connect") == []
        order_id = str(await rent(client))
        assert await complete(client, "order_id", "", "connect") == [order_id]
        found = await client.complete(template, {"name": "order_id", "value": order_id[:2]})
        assert found.completion.values == [order_id]
        assert await complete(client, "order_id", "x", "connect") == []


@pytest.mark.anyio
async def test_other_arguments_get_nothing(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        for name in ("hours", "nonsense", ""):
            assert await complete(client, name, "1") == []


@pytest.mark.anyio
async def test_a_toolset_that_is_off_completes_nothing(connect: Connect, sandbox: Running) -> None:
    async with connect(CLORE_TOOLSETS="account") as client:
        for name in ("gpu", "countries", "image", "order_id"):
            assert await complete(client, name, "") == []
    assert requests_sent(sandbox) == []


@pytest.mark.anyio
async def test_a_failing_read_completes_nothing_and_never_raises(
    connect: Connect, mode: Mode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise TimedOut("No reply in time.")

    async def crashes(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(CloreClient, "marketplace_as_sent", fails)
    async with connect(mode, CLORE_API_KEY="") as client:
        assert await complete(client, "order_id", "", "connect") == []
        assert await complete(client, "gpu", "4090") == []
        assert not caplog.records
        monkeypatch.setattr(CloreClient, "my_orders", crashes)
        assert await complete(client, "order_id", "", "connect") == []
    assert "a completion failed" in caplog.text


@pytest.mark.anyio
async def test_a_slow_market_is_given_up_and_its_answer_serves_the_next_keystroke(
    connect: Connect, sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "GIVE_UP_SECONDS", 0.1)
    control(sandbox, "POST", "/options", {"latency": 2.0})
    async with connect() as client:
        began = time.monotonic()
        assert await complete(client, "gpu", "4090") == []
        assert time.monotonic() - began < 2.0
        found: list[str] = []
        while not found and time.monotonic() - began < 60:
            found = await complete(client, "gpu", "4090")
    assert found[0] == "RTX 4090"
    assert requests_sent(sandbox) == ["marketplace"]


def test_what_begins_so_comes_before_what_contains_it() -> None:
    models = ["RTX 4090", "RTX A4000", "A100 80GB", "A10", "Tesla T4"]
    assert matching(models, "a") == ["A100 80GB", "A10", "RTX A4000", "Tesla T4"]
    assert matching(models, "rtx-40") == ["RTX 4090"]
    assert matching(models, " ") == models
