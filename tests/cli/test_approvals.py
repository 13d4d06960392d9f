"""Approving outside the chat: only at a terminal, only what still waits, and then once for the same call."""

from __future__ import annotations

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from clore_mcp.rental.requests import CreateOrder, CreateWatch
from clore_mcp.wiring import Services
from tests.preforked import python
from tests.terminal import Done
from tests.world import IMAGE, World

TYPE_YES = "anything else to leave it:"


def _decline(world: World, approval_id: str, word: str = "no") -> Done:
    with world.at_terminal("decline", approval_id) as terminal:
        terminal.expect("Type no to decline this")
        terminal.type(word)
        return terminal.end()


def _state(world: World, quote_id: str) -> dict[str, object]:
    return world.rows("SELECT state, decided_by FROM quotes WHERE id = ?", quote_id)[0]


def test_what_waits_is_listed_with_its_price_its_worst_case_and_who_asked(world: World) -> None:
    quote_id = world.hold(world.ask(), caller="claude\x1b[2J-code")
    done = world.run("approvals")
    assert done.code == 0
    question = str(world.rows("SELECT question FROM quotes")[0]["question"])
    assert all(line in done.out for line in question.split("\n"))
    first, *_, price, asked, cure = done.out.splitlines()
    assert first.startswith(f"{quote_id}  Rent 1x ")
    assert "per hour, worst case $" in price
    assert "asked by claude[2J-code " in asked
    assert "waits for you, lapses in 9 min" in asked
    assert cure == f"To decide: clore-mcp approve {quote_id}, or clore-mcp decline {quote_id}"


def test_approve_through_a_pipe_is_refused_and_nothing_changes(world: World) -> None:
    quote_id = world.hold(world.ask())
    before = world.ledger()
    done = world.run("approve", quote_id, stdin="yes\n")
    assert (done.code, done.out) == (1, "")
    assert "approve needs a person at a terminal" in done.err
    assert _state(world, quote_id) == {"state": "pending", "decided_by": None}
    assert world.ledger() == before


def test_there_is_no_way_to_say_yes_in_advance(world: World) -> None:
    quote_id = world.hold(world.ask())
    assert world.run("approve", quote_id, "--yes").code == 2
    with world.at_terminal("approve", quote_id, CLORE_YES="1") as terminal:
        terminal.type("yes")  # typed, or pasted, before there was a question
        terminal.expect(TYPE_YES)
        terminal.type("y")
        assert "Not approved. Nothing has changed." in terminal.end().out
    assert _state(world, quote_id)["state"] == "pending"


def test_the_whole_question_is_shown_before_the_yes(world: World) -> None:
    quote_id = world.hold(world.ask(command="echo \u00e4", env={"TOKEN": "hunter2"}, hours=2))
    question = str(world.rows("SELECT question FROM quotes WHERE id = ?", quote_id)[0]["question"])
    with world.at_terminal("approve", quote_id) as terminal:
        terminal.expect(TYPE_YES)
        shown = " ".join(terminal.seen.split())
        assert max(map(len, terminal.seen.splitlines())) < 80
        terminal.type("yes")
        done = terminal.end()
    assert all(" ".join(line.split()) in shown for line in question.split("\n"))
    assert "hunter2" not in shown
    assert (done.code, "The approval is valid for 30 min, for the same call by claude-code" in done.out) == (0, True)
    decided = _state(world, quote_id)
    assert decided["state"] == "approved"
    assert str(decided["decided_by"]).startswith("person at ")
    assert str(decided["decided_by"]).endswith(", terminal")
    assert "approved and not used yet" in world.run("approvals").out
    assert _decline(world, quote_id).code == 0  # a yes that nobody has used is taken back
    assert _state(world, quote_id)["state"] == "declined"


def test_a_quote_that_lapses_while_it_is_read_is_not_approved(world: World) -> None:
    quote_id = world.hold(world.ask())
    with world.at_terminal("approve", quote_id) as terminal:
        terminal.expect(TYPE_YES)
        world.write(lambda tx: tx.run("UPDATE quotes SET expires_at = created_at"))
        terminal.type("yes")
        done = terminal.end()
    assert (done.code, f"{quote_id} has lapsed. Nothing has changed." in done.out) == (1, True)
    assert _state(world, quote_id)["decided_by"] is None


def test_what_is_decided_or_unknown_takes_no_answer(world: World) -> None:
    quote_id = world.hold(world.ask())
    piped = world.run("decline", quote_id, stdin="no\n")
    assert (piped.code, "decline needs a person at a terminal" in piped.err) == (1, True)
    assert _decline(world, quote_id, "n").code == 1
    assert _state(world, quote_id)["state"] == "pending"
    done = _decline(world, quote_id)
    assert (done.code, "Rent 1x " in done.out, "Declined. " in done.out) == (0, True, True)
    assert str(_state(world, quote_id)["decided_by"]).startswith("person at ")
    with world.at_terminal("decline", quote_id) as terminal:
        again = terminal.end()
    assert (again.code, f"{quote_id} was declined" in again.out) == (1, True)
    with world.at_terminal("decline", "q\x1b[31mnone") as terminal:
        unknown = terminal.end()
    assert (unknown.code, "There is no approval 'q[31mnone'" in unknown.out) == (1, True)
    with world.at_terminal("approve", quote_id) as terminal:
        assert "was declined. Nothing has changed" in terminal.end().out


def test_read_only_approves_nothing(world: World) -> None:
    quote_id = world.hold(world.ask())
    with world.at_terminal("approve", quote_id, CLORE_READ_ONLY="1") as terminal:
        done = terminal.end()
    assert (done.code, "CLORE_READ_ONLY is set, so nothing was changed" in done.out) == (1, True)


@pytest.mark.anyio
async def test_a_yes_at_a_terminal_lets_the_same_call_rent(world: World) -> None:
    ask = await _off_loop_ask(world)
    arguments = {"server_id": ask.server_id, "image": ask.image, "hours": 1.5}
    server = StdioServerParameters(command=python(), args=["-m", "clore_mcp"], env=world.env)
    async with Client(stdio_client(server), read_timeout_seconds=60) as client:
        held = (await client.call_tool("create_order", arguments)).structured_content or {}
        assert held["status"] == "approval_required"
        with world.at_terminal("approve", held["approval_id"]) as terminal:
            terminal.expect(TYPE_YES)
            terminal.type("yes")
            assert terminal.end().code == 0
        made = (await client.call_tool("create_order", arguments)).structured_content or {}
        assert made["status"] == "created"
        assert made["server_id"] == ask.server_id
        other = {**arguments, "hours": 1.25, "server_id": ask.server_id}
        again = (await client.call_tool("create_order", other)).structured_content or {}
        assert again["status"] != "created"  # the yes was for exactly that, once


@pytest.mark.anyio
async def test_a_no_outside_the_chat_is_no_yes(world: World) -> None:
    ask = await _off_loop_ask(world)
    arguments = {"server_id": ask.server_id, "image": ask.image, "hours": 1.5}
    server = StdioServerParameters(command=python(), args=["-m", "clore_mcp"], env=world.env)
    async with Client(stdio_client(server), read_timeout_seconds=60) as client:
        held = (await client.call_tool("create_order", arguments)).structured_content or {}
        assert _decline(world, held["approval_id"]).code == 0
        after = (await client.call_tool("create_order", arguments)).structured_content or {}
        again = (await client.call_tool("create_order", arguments)).structured_content or {}
    assert after["status"] == "declined", "the no is heard"
    assert again["status"] == "approval_required" and again["approval_id"] != held["approval_id"], "a new wish"
    assert world.rows("SELECT * FROM intents") == []


async def _off_loop_ask(world: World) -> CreateOrder:
    import anyio

    return await anyio.to_thread.run_sync(world.ask)


def _watch(world: World) -> dict[str, object]:
    """The same call for a watch, of a client that can't be asked."""
    ask = CreateWatch(
        gpu="4090", max_usd_per_hour=0.01, hours=1.5, image=IMAGE, expires_hours=24, env={"HF_TOKEN": "hf_not_a_token"}
    )

    async def work(services: Services) -> dict[str, object]:
        await services.keep_leases()
        held = await services.guard.hold(ask, caller="claude-code", can_ask=False, replay=False)
        return (await services.guard.conclude(held, ask, answer=None, caller="claude-code")).as_json()

    return world.with_services(work)


def test_a_watch_is_approved_shown_and_taken_back_at_a_terminal(world: World) -> None:
    waits = _watch(world)
    assert waits["status"] == "approval_required"
    with world.at_terminal("approve", str(waits["approval_id"])) as terminal:
        terminal.expect(TYPE_YES)
        shown = " ".join(terminal.seen.split())
        assert max(map(len, terminal.seen.splitlines())) < 80
        terminal.type("yes")
        terminal.end()
    for told in ("Rent later without asking again: one server of RTX 4090 for 1.5 hours", "$0.01 per hour or less",
                 "worst case $", "Environment: HF_TOKEN (values not shown)", "any country"):  # fmt: skip
        assert told in shown, shown
    watch_id = str(_watch(world)["watch_id"])
    listed = world.run("approvals").out
    assert f"{watch_id}  watch: 1 order of RTX 4090, 1.5 hours each" in listed and f"decline {watch_id}" in listed
    assert "hf_not_a_token" not in listed + world.ledger()
    assert _decline(world, watch_id, "n").code == 1
    done = _decline(world, watch_id)
    assert done.code == 0 and "rents nothing more" in done.out
    assert [row["state"] for row in world.rows("SELECT state FROM watches")] == ["cancelled"]
    assert world.run("approvals").out == "Nothing waits for your approval.\n"
    assert "watch_cancelled" in world.ledger()
