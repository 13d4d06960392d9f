"""What `next` says of an order that is not ready, over every reason, age, and past."""

from __future__ import annotations

import itertools
import re

import pytest

from clore_mcp.rental.ssh.access import (
    ReadyReason,
    SshLook,
    is_settled,
    memory_as,
    memory_from,
    others,
    remembered,
)
from clore_mcp.rental.ssh.advice import NO_MORE, Situation, next_step, not_dead, stage

COMMAND = "ssh -p 1972 root@n1.us.clorecloud.net"
RENTS = re.compile(r"create_order|(?<!not )\b(?:rent|take|choose|find) (?:another|a second|a new|a different)")
WHYS = [reason for reason in ReadyReason if reason is not ReadyReason.READY]
UNREACHED = [reason for reason in WHYS if reason is not ReadyReason.IMAGE_LOADING]


def situation(reason: ReadyReason, **more: object) -> Situation:
    loading = reason is ReadyReason.IMAGE_LOADING
    known: dict[str, object] = {"minutes": 7, "command": None if loading else COMMAND, "reaches": "clore"}
    return Situation(5, "deploying" if loading else "running", reason, **{**known, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", WHYS)
def test_nothing_ever_suggests_another_rental_and_after_a_second_failure_each_text_forbids_it(
    reason: ReadyReason,
) -> None:
    for minutes, reaches, (failed, alike) in itertools.product(
        (None, 0, 4, 5, 14, 15, 600),
        ("hosts", "clore", "proxy_only", "nothing"),
        (((), ()), ((3,), ()), ((3,), (3,)), ((2, 3), (3,))),
    ):
        found = situation(reason, minutes=minutes, reaches=reaches, failed=failed, alike=alike)
        told = next_step(found)
        assert not RENTS.search(told), told
        if failed and (reason in UNREACHED or found.age >= 15):
            assert NO_MORE in told, told
        if reason in UNREACHED and "cancel_order" in told:
            assert told.index(COMMAND) < told.index("cancel_order"), "the person tries it first"
        assert len(told) < 800 and len(stage(found)) < 150


@pytest.mark.parametrize("reason", WHYS)
def test_what_to_do_changes_at_5_and_at_15_minutes(reason: ReadyReason) -> None:
    told = {age: re.sub(r"\d+", "#", next_step(situation(reason, minutes=age))) for age in (0, 4, 5, 14, 15, 90)}
    assert told[0] == told[4] != told[5] == told[14] != told[15] == told[90]
    assert "wait_for_order again" in told[0] and "wait_for_order" not in told[15]
    assert next_step(situation(reason, minutes=None)) != next_step(situation(reason, minutes=0))


@pytest.mark.parametrize("reason", UNREACHED)
def test_each_reason_names_whether_this_machine_or_the_host_is_the_likely_cause(reason: ReadyReason) -> None:
    host = next_step(situation(reason, reaches="hosts"))
    proxy, offline = (next_step(situation(reason, reaches=reaches)) for reaches in ("proxy_only", "nothing"))
    alike = next_step(situation(reason, failed=(3,), alike=(3,)))
    assert "this host is probably at fault" in host
    assert "only through a proxy" in proxy and "its own network" in offline
    assert "Order 3, on another host, failed the same way" in alike and "this machine's network" in alike


def test_a_cancel_that_saves_the_creation_fee_is_named_while_it_does() -> None:
    free = "2026-11-29T10:10:00Z"
    for reason in WHYS:
        assert free in next_step(situation(reason, free_until=free))
        assert "creation fee" not in next_step(situation(reason))


def test_an_address_that_cannot_be_used_gives_its_warning_and_no_line() -> None:
    told = next_step(situation(ReadyReason.NAME_NOT_FOUND, command=None, warning="Clore reported no host name."))
    assert "Clore reported no host name." in told and "`" not in told


def test_only_what_an_ssh_server_that_starts_does_not_show_counts_from_the_first_minute() -> None:
    assert [reason.value for reason in ReadyReason if is_settled(reason, 1)] == ["name_not_found", "timed_out", "ready"]
    assert all(is_settled(reason, 5) for reason in ReadyReason)


def test_attempts_are_remembered_for_hours_and_of_other_servers_alone() -> None:
    hour = 3600.0
    memory: dict[int, SshLook] = {}
    for about, server, at in ((1, 10, 0.0), (2, 20, 5 * hour), (3, 30, 6.5 * hour)):
        memory = remembered(memory, about, SshLook(server, ReadyReason.TIMED_OUT, at))
    assert set(memory) == {2, 3}
    assert memory_from(memory_as(memory)) == memory
    assert set(others(memory, 3, 30, 6.5 * hour)) == {2}
    assert others(memory, 4, 20, 6.5 * hour).keys() == {3}, "the same server again is not a second host"
    assert not others(memory, 4, 40, 20 * hour)


@pytest.mark.parametrize(
    "text", [None, "", "null", "[]", "{", '{"1": 2}', '{"1": [1, "other", 2]}', '{"x": [1,"ready",2]}']
)
def test_a_memory_of_another_version_is_none(text: str | None) -> None:
    assert memory_from(text) == {}


@pytest.mark.parametrize("reason", ReadyReason)
def test_the_next_server_is_named_where_the_host_alone_can_be_at_fault_and_after_the_person_has_tried(
    reason: ReadyReason,
) -> None:
    for minutes, reaches, failed in itertools.product(
        (0, 4, 5, 14, 15, 29), ("hosts", "clore", "proxy_only", "nothing"), ((), (3,))
    ):
        found = situation(reason, minutes=minutes, reaches=reaches, failed=failed, next_server=77)
        dead = reason in UNREACHED and minutes >= 5 and reaches in ("hosts", "clore") and not failed
        assert (not_dead(found) is None) is dead
        told = next_step(found)
        assert ("replaces_order_id 5" in told and "server 77" in told) is dead, told
        assert len(told) < 900
        if dead:
            assert told.index(COMMAND) < told.index("replaces_order_id") < told.index("cancel_order")


def test_a_memory_without_that_mark_is_one_of_a_machine_that_may_have_been_offline() -> None:
    assert memory_from('{"1": [10, "timed_out", 5.0]}') == {1: SshLook(10, ReadyReason.TIMED_OUT, 5.0, online=False)}
