"""Orders that cannot be used over SSH, each way: an assistant that reads only `next` and `ready_reason` and does what
they say. It lets the person try the line before anything is cancelled, and never rents a second server by itself."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clore_mcp.rental.ssh.advice import NO_MORE
from clore_mcp.sandbox import Running, start_in_thread
from tests.conftest import FAST
from tests.story.people import ERAS, IMAGE, Assistant, Person, assistant

pytestmark = pytest.mark.anyio

FAULTS = {
    "image_loading": "never_deploys",
    "name_not_found": "ssh_name_unknown",
    "connection_refused": "ssh_refused",
    "timed_out": "ssh_times_out",
    "no_ssh_banner": "ssh_no_banner",
}
UNREACHED = [reason for reason in FAULTS if reason != "image_loading"]
RENTS = re.compile(r"create_order|(?<!not )\b(?:rent|take|choose|find) (?:another|a second|a new|a different)")
LINE = re.compile(r"`(ssh [^`]+)`")
_MOST_CALLS = 12
_LOOKS_TWICE_SECONDS = 4  # a shorter wait may answer from a list that is ten seconds old


async def control(market: Running, path: str, body: object) -> Any:
    async with httpx2.AsyncClient(verify=False) as http:
        reply = (await http.post(f"{market.control_url}{path}", json=body)).raise_for_status()
    return reply.json()


async def orders_made(market: Running) -> int:
    async with httpx2.AsyncClient(verify=False) as http:
        return len((await http.get(f"{market.control_url}/state")).json()["orders"])


@dataclass
class Follower:
    """An assistant of few thoughts. The person is at hand: their own SSH works or not."""

    us: Assistant
    market: Running
    reaches_it: bool = False
    told: list[dict[str, Any]] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)

    async def rent(self, place: int = 0) -> int:
        found = (await self.us.call("search_servers", gpu="3060"))["servers"]
        made = await self.us.call("create_order", server_id=found[place]["server_id"], image=IMAGE, hours=4)
        assert made["status"] == "created", made
        return int(made["order_id"])

    async def follow(self, order_id: int) -> str:
        """Do as `next` says until there is nothing to do: how it ended."""
        for _ in range(_MOST_CALLS):
            told = await self.us.call("wait_for_order", order_id=order_id, timeout_seconds=_LOOKS_TWICE_SECONDS)
            self.told.append(told)
            if told.get("ready_reason") == "ready":
                return "ready"
            if RENTS.search(told["next"]):
                await self.rent(len(self.told))
            if line := LINE.search(told["next"]):
                self.tried.append(line[1])
                if self.reaches_it:
                    return "the person is in"
            if "wait_for_order" not in told["next"]:
                assert "cancel_order" in told["next"], told
                assert (await self.us.call("cancel_order", order_id=order_id))["status"] == "cancelled"
                return "cancelled"
            await control(self.market, "/clock", {"advance": 300})
        pytest.fail(f"led to call after call: {self.told[-1]['next']}")


@pytest.mark.parametrize("reason", FAULTS)
async def test_an_assistant_that_follows_next_lets_the_person_try_and_rents_once(
    market: Running, tmp_path: Path, reason: str
) -> None:
    await control(market, "/faults", {"kind": FAULTS[reason], "times": 9})
    async with assistant(market, tmp_path, "auto", Person(True, True)) as us:
        follower = Follower(us, market)
        assert await follower.follow(await follower.rent()) == "cancelled"
    assert await orders_made(market) == 1
    up = [told for told in follower.told if told["status"] == "running"] or follower.told
    assert {told["ready_reason"] for told in up} == {reason}
    assert all(not told["ready"] for told in follower.told)
    assert follower.told[-1]["minutes_since_start"] >= 15, "the person was given time to look"
    by_age: dict[int, set[str]] = {0: set(), 5: set(), 15: set()}
    for told in up:
        age = max(start for start in by_age if start <= told["minutes_since_start"])
        by_age[age].add(re.sub(r"\d+", "#", told["next"]))
    assert not by_age[5] & by_age[15] and not by_age[0] & by_age[5], "what to do changes with the time"
    if reason in UNREACHED:
        assert follower.tried and follower.tried[0] == up[0]["ssh"]["command"]
        assert {told["this_machine_reaches"] for told in up} == {"clore"}


@pytest.mark.parametrize("reason", ["name_not_found", "timed_out"])
async def test_where_the_persons_own_line_works_nothing_is_cancelled(
    market: Running, tmp_path: Path, reason: str
) -> None:
    await control(market, "/faults", {"kind": FAULTS[reason]})
    async with assistant(market, tmp_path, "auto", Person(True)) as us:
        follower = Follower(us, market, reaches_it=True)
        order_id = await follower.rent()
        assert await follower.follow(order_id) == "the person is in"
        (order,) = (await us.call("list_orders"))["orders"]
        assert order["order_id"] == order_id and order["status"] == "running"


@pytest.mark.parametrize("reason", ["image_loading", "connection_refused"])
async def test_after_two_hosts_that_failed_alike_a_third_is_never_suggested(
    market: Running, tmp_path: Path, reason: str
) -> None:
    await control(market, "/faults", {"kind": FAULTS[reason], "times": 9})
    async with assistant(market, tmp_path, "auto", Person(True, True)) as us:
        first = Follower(us, market)
        dead = await first.rent()
        assert await first.follow(dead) == "cancelled"
    async with assistant(market, tmp_path, "legacy", Person(True, True)) as us:  # another process: nothing is forgotten
        second = Follower(us, market)
        order_id = await second.rent(1)  # the person wanted one more
        assert await second.follow(order_id) == "cancelled"
    assert await orders_made(market) == 2
    assert not any(RENTS.search(told["next"]) for told in second.told)
    last = second.told[-1]
    assert last["failed_alike"] == [dead]
    assert NO_MORE in last["next"] and f"Order {dead}" in last["next"], last


async def test_a_host_that_is_reached_shows_that_the_other_one_is_at_fault(market: Running, tmp_path: Path) -> None:
    async with assistant(market, tmp_path, "auto", Person(True, True)) as us:
        follower = Follower(us, market)
        assert await follower.follow(await follower.rent()) == "ready"
        await control(market, "/faults", {"kind": "ssh_times_out"})
        order_id = await follower.rent(1)
        await control(market, "/clock", {"advance": 120})
        told = await us.call("wait_for_order", order_id=order_id, timeout_seconds=10)
    assert (told["ready_reason"], told["this_machine_reaches"]) == ("timed_out", "hosts"), told
    assert "this host is probably at fault" in told["next"] and "failed_alike" not in told


@pytest.mark.parametrize("mode", ERAS)
async def test_minutes_and_the_creation_fee_are_told_and_progress_names_both(
    market: Running, tmp_path: Path, mode: str
) -> None:
    await control(market, "/options", {"deploy_after": 1e6})
    async with assistant(market, tmp_path, mode, Person(True)) as us:
        order_id = await Follower(us, market).rent()
        young = await us.call("wait_for_order", order_id=order_id, timeout_seconds=4)
        assert (young["ready_reason"], young["status"]) == ("image_loading", "deploying")
        started, free, now = (
            datetime.fromisoformat(young[name]) for name in ("started_at", "free_cancel_until", "now")
        )
        assert (free - started).total_seconds() == pytest.approx(600, abs=3)
        assert young["minutes_since_start"] == pytest.approx((now - started).total_seconds() // 60, abs=1)
        stage = r"Minute \d+: the image is loading and the container is being deployed"
        assert any(re.match(stage, message) for message in us.progress), us.progress
        await control(market, "/clock", {"advance": 700})
        old = await us.call("wait_for_order", order_id=order_id, timeout_seconds=4)
        assert "free_cancel_until" not in old and old["minutes_since_start"] >= 11


async def test_an_order_without_a_creation_fee_names_no_time_for_it(tmp_path: Path) -> None:
    with start_in_thread(FAST) as market:
        await control(market, "/options", {"creation_fee_usd": 0.0})
        async with assistant(market, tmp_path, "auto", Person(True)) as us:
            told = await us.call("wait_for_order", order_id=await Follower(us, market).rent(), timeout_seconds=1)
        assert "free_cancel_until" not in told


async def test_where_clore_falls_silent_meanwhile_the_answer_says_so_and_comes_in_time(tmp_path: Path) -> None:
    with start_in_thread(FAST) as market:
        await control(market, "/faults", {"kind": "ssh_refused"})
        async with assistant(market, tmp_path, "auto", Person(True)) as us:
            order_id = await Follower(us, market).rent()
            await control(market, "/clock", {"advance": 400})
            waiting = asyncio.create_task(us.call("wait_for_order", order_id=order_id, timeout_seconds=9))
            await us.hears("waiting for SSH")  # the next look is in three seconds
            await control(market, "/options", {"latency": 300})
            told = await asyncio.wait_for(waiting, 20)
            assert told["ready_reason"] == "connection_refused", told
            assert told["this_machine_reaches"] == "clore", "it takes connections, though it says nothing"
            await control(market, "/options", {"latency": 0})


async def test_a_machine_that_reaches_nothing_any_more_is_told_so(tmp_path: Path) -> None:
    with start_in_thread(FAST) as market:
        async with assistant(market, tmp_path, "auto", Person(True)) as us:
            follower = Follower(us, market)
            await control(market, "/faults", {"kind": "ssh_refused"})
            order_id = await follower.rent()
            await control(market, "/clock", {"advance": 400})
            waiting = asyncio.create_task(us.call("wait_for_order", order_id=order_id, timeout_seconds=10))
            await us.hears("waiting for SSH")  # the next look is in three seconds
            await asyncio.to_thread(market.stop)
            told = await waiting
    assert (told["ready_reason"], told["this_machine_reaches"]) == ("connection_refused", "nothing"), told
    assert "Clore did not answer just now" in told["next"] and "its own network" in told["next"]


async def test_a_wait_longer_than_clients_wait_is_refused_with_its_cure(market: Running, tmp_path: Path) -> None:
    async with assistant(market, tmp_path, "auto") as us:
        told = await us.call("wait_for_order", order_id=1, timeout_seconds=300)
    assert told["error"] == "invalid_argument" and "timeout_seconds" in told["message"], told
    assert "50" in told["message"] + told["hint"]
