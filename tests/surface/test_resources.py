"""The resources: the same data as the tools', what they refuse, and what a stranger's address can't do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters

from clore_mcp.clore import CloreClient
from clore_mcp.rental.containers import SHORT_NAMES
from clore_mcp.sandbox import Running
from clore_mcp.server import create_server
from tests.conftest import environment, settings_for

from .conftest import Connect, Mode, call, cheapest, control, read, rent

STATIC = ["clore://account", "clore://images", "clore://ledger", "clore://market/gpus", "clore://orders"]
TEMPLATES = ["clore://orders/{order_id}", "clore://orders/{order_id}/ssh-config"]


def steady(order: dict[str, Any]) -> dict[str, Any]:
    """An order without what grows by the second."""
    return {name: value for name, value in order.items() if name != "spent_usd"}


@pytest.mark.anyio
async def test_all_are_listed_with_title_description_and_type(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        static = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
    assert sorted(str(one.uri) for one in static) == STATIC
    assert sorted(one.uri_template for one in templates) == TEMPLATES
    assert all(one.title and one.description for one in static)
    assert all(one.title and one.description and one.mime_type for one in templates)
    assert {one.mime_type for one in static} == {"application/json"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("toolset", "left"),
    [
        ("orders", ["clore://orders", *TEMPLATES]),
        ("account", ["clore://account", "clore://ledger"]),
        ("market", ["clore://images", "clore://market/gpus"]),
    ],
)
async def test_a_toolset_that_is_off_has_no_resources(connect: Connect, toolset: str, left: list[str]) -> None:
    async with connect(CLORE_TOOLSETS=toolset) as client:
        static = [str(one.uri) for one in (await client.list_resources()).resources]
        templates = [one.uri_template for one in (await client.list_resource_templates()).resource_templates]
    assert sorted([*static, *templates]) == left


@pytest.mark.anyio
async def test_orders_are_what_list_orders_tells(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        told = await call(client, "list_orders")
        assert json.loads(await read(client, "clore://orders")) == without_now(told)
        order_id = await rent(client)
        told = await call(client, "list_orders")
        text = await read(client, "clore://orders")
        shown = json.loads(text)
        one = json.loads(await read(client, f"clore://orders/{order_id}"))
    assert [steady(order) for order in shown.pop("orders")] == [steady(order) for order in told.pop("orders")]
    assert shown == without_now(told)
    assert one["order_id"] == order_id
    assert one["ssh"]["command"].endswith(f"root@{one['ssh']['host']}")
    assert ": " not in text.replace("://", "")  # compact


def without_now(told: Any) -> Any:
    """An answer without its time, which no resource has: a reader is told when one changes."""
    return {name: value for name, value in told.items() if name != "now"}


@pytest.mark.anyio
async def test_one_order_is_the_same_row_and_an_ended_one_is_found_too(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        order_id = await rent(client)
        (row,) = (await call(client, "list_orders"))["orders"]
        assert steady(json.loads(await read(client, f"clore://orders/{order_id}"))) == steady(row)
        assert (await call(client, "cancel_order", order_id=order_id))["status"] == "cancelled"
        ended = json.loads(await read(client, f"clore://orders/{order_id}"))
        config = await read(client, f"clore://orders/{order_id}/ssh-config")
    assert ended["status"] == "ended"
    assert config == f"# Order {order_id} has ended; there is nothing to connect to.\n"


@pytest.mark.anyio
@pytest.mark.parametrize("order_id", ["77", "0", "-1", "1.5", "abc", "9" * 40, "%31", "1%2F..%2F2"])
async def test_an_order_that_does_not_exist_is_not_found(connect: Connect, order_id: str) -> None:
    async with connect() as client:
        for uri in (f"clore://orders/{order_id}", f"clore://orders/{order_id}/ssh-config"):
            with pytest.raises(MCPError) as refused:
                await client.read_resource(uri)
            assert refused.value.code == -32602
            assert "order" in str(refused.value)


@pytest.mark.anyio
async def test_ssh_config_is_a_block_for_that_order(connect: Connect, mode: Mode, tmp_path: Path) -> None:
    async with connect(mode) as client:
        order_id = await rent(client)
        ssh = json.loads(await read(client, f"clore://orders/{order_id}"))["ssh"]
        (content,) = (await client.read_resource(f"clore://orders/{order_id}/ssh-config")).contents
    assert content.mime_type == "text/plain"
    lines = [line.strip() for line in getattr(content, "text", "").splitlines()]
    assert lines[0] == f"Host clore-{order_id}"
    assert {f"HostName {ssh['host']}", f"Port {ssh['port']}", "User root"} < set(lines)
    assert f'UserKnownHostsFile "{tmp_path / "state" / "known_hosts"}"' in lines


@pytest.mark.anyio
async def test_a_hostile_address_gives_a_comment_and_no_block(connect: Connect, mode: Mode, sandbox: Running) -> None:
    async with connect(mode) as client:
        server_id = await cheapest(client)
        control(sandbox, "POST", "/options", {"hostile_endpoints": [server_id]})
        order_id = await rent(client, server_id)
        config = await read(client, f"clore://orders/{order_id}/ssh-config")
        one = json.loads(await read(client, f"clore://orders/{order_id}"))
    assert config.startswith(f"# No ssh-config for order {order_id}: Clore reported an address")
    assert all(line.startswith("#") for line in config.splitlines())
    assert "rm -rf" not in config + json.dumps(one)
    assert "ssh" not in one


@pytest.mark.anyio
async def test_an_order_without_an_address_yet_says_so(connect: Connect, sandbox: Running) -> None:
    control(sandbox, "POST", "/options", {"endpoints_after": 3600.0, "deploy_after": 3600.0})
    async with connect() as client:
        order_id = await rent(client)
        config = await read(client, f"clore://orders/{order_id}/ssh-config")
    assert config == (
        f"# No ssh-config for order {order_id}: it is deploying, and Clore has given it no SSH address yet;"
        " read this again later.\n"
    )


@pytest.mark.anyio
async def test_account_is_what_get_account_tells(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        assert json.loads(await read(client, "clore://account")) == await call(client, "get_account")


@pytest.mark.anyio
async def test_gpus_are_what_search_finds(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        told = json.loads(await read(client, "clore://market/gpus"))
        found = await call(client, "search_servers", gpu="RTX 4090", sort_by="price_per_gpu", limit=1)
    (model,) = [one for one in told["models"] if one["model"] == "RTX 4090"]
    assert model["usd_per_gpu_hour"] == found["typical_usd_per_gpu_hour"]
    assert model["servers"] >= model["servers_free"] == found["total_matches"]
    assert model["vram_gb"] == [24]
    assert told["snapshot_age_seconds"] < 60
    free = [one["gpus_free"] for one in told["models"]]
    assert free == sorted(free, reverse=True)


@pytest.mark.anyio
async def test_images_need_nothing_and_name_what_they_have(connect: Connect) -> None:
    async with connect(CLORE_API_KEY="") as client:
        told = json.loads(await read(client, "clore://images"))
    assert told["images"][0]["name"] == "jupyter" and told["images"][0]["image"] == "cloreai/jupyter:ubuntu24.04-v2"
    assert {one["name"]: one["image"] for one in told["images"] if "name" in one} == {
        name: known.image for name, known in SHORT_NAMES.items()
    }
    assert all(
        one["own_sshd"] is not ("without sshd" in one["has"] or "no sshd" in one["has"]) for one in told["images"]
    )
    assert "SSH entrypoint" in told["others"] and "no registry login" in told["others"]


@pytest.mark.anyio
async def test_ledger_shows_the_newest_steps_first(connect: Connect, mode: Mode, key: str) -> None:
    async with connect(mode) as client:
        assert json.loads(await read(client, "clore://ledger")) == {"steps": []}
        order_id = await rent(client)
        await call(client, "cancel_order", order_id=order_id)
        text = await read(client, "clore://ledger")
    steps = json.loads(text)["steps"]
    names = [step["step"] for step in steps]
    assert names[-1] == "quoted" and "data" not in steps[-1]
    assert {"answered", "sending", "created", "cancelled"} <= set(names)
    assert names.index("cancelled") < names.index("created") < names.index("sending")
    assert any(step.get("order_id") == order_id for step in steps)
    assert key not in text


@pytest.mark.anyio
async def test_without_a_key_the_market_reads_and_the_account_names_the_setting(connect: Connect, mode: Mode) -> None:
    async with connect(mode, CLORE_API_KEY="") as client:
        assert json.loads(await read(client, "clore://market/gpus"))["models"]
        for uri in ("clore://orders", "clore://orders/7", "clore://account", "clore://ledger"):
            with pytest.raises(MCPError, match="CLORE_API_KEY") as refused:
                await client.read_resource(uri)
            assert refused.value.code == -32603


@pytest.mark.anyio
async def test_a_failure_says_what_happened_and_what_to_do(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret of ours")

    async with connect(CLORE_API_KEY="z" * 32) as client:
        with pytest.raises(MCPError, match=r"make a new key on clore\.ai"):
            await client.read_resource("clore://account")
    monkeypatch.setattr(CloreClient, "marketplace_as_sent", crash)
    async with connect() as client:
        with pytest.raises(MCPError) as refused:
            await client.read_resource("clore://market/gpus")
        assert "secret" not in str(refused.value)


@pytest.mark.anyio
async def test_two_clients_of_one_server_are_both_served_also_when_the_first_leaves(
    sandbox: Running, key: str, tmp_path: Path
) -> None:
    env = environment(sandbox, tmp_path, CLORE_API_KEY=key, CLORE_WATCHDOG="off")
    server = create_server(settings_for(env, tmp_path))
    async with Client(server) as stays:
        async with Client(server) as leaves:
            assert await read(leaves, "clore://orders") == await read(stays, "clore://orders")
        assert json.loads(await read(stays, "clore://orders"))["orders"] == []


@pytest.mark.anyio
async def test_over_stdio_the_surface_is_the_same(sandbox: Running, key: str, tmp_path: Path, mode: Mode) -> None:
    process = StdioServerParameters(
        command=sys.executable,
        args=["-m", "clore_mcp"],
        env=environment(sandbox, tmp_path, CLORE_API_KEY=key, CLORE_WATCHDOG="off"),
        cwd=Path(__file__).parents[2],
    )
    async with Client(process, mode=mode) as client:
        assert len((await client.list_prompts()).prompts) == 5
        assert len((await client.list_resources()).resources) == len(STATIC)
        nothing = {"orders": [], "total_usd_per_hour": 0, "total_spent_usd": 0, "watches_waiting": 0}
        assert json.loads(await read(client, "clore://orders")) == nothing
        told = await client.get_prompt("connect", {"order_id": "12"})
        assert "It is this order: 12" in getattr(told.messages[0].content, "text", "")
