"""What a watchdog says of a fault that stays, for as long as it runs."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from clore_mcp.cli import watchdog
from clore_mcp.errors import CloreError, NotSent
from clore_mcp.watchdog_process import LOG_NAME, shorten_log
from clore_mcp.wiring import Services
from tests.world import World


def test_a_fault_that_stays_is_said_once_an_hour_whatever_its_words(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hours = 0.0
    clock = SimpleNamespace(monotonic=lambda: hours * 3600, strftime=time.strftime)
    monkeypatch.setattr(watchdog, "time", clock)
    seen = iter(range(10_000))

    async def account() -> str:
        raise NotSent(f"No connection, {next(seen)} times.")

    async def rounds(services: Services) -> None:
        nonlocal hours
        monkeypatch.setattr(services.context.readings, "account", account)
        watch = watchdog._Watch(services)
        for _ in range(3 * 240):  # four rounds a minute
            await watch.round()
            hours += 1 / 240
        assert isinstance(watch.found.blind, CloreError)

    world.with_services(rounds)
    assert capsys.readouterr().err.count("can't be read") == 3


def test_a_warning_of_one_kind_passes_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: now))
    seldom = watchdog._OncePerHour()

    def passes(text: str, value: object) -> bool:
        return seldom.filter(logging.LogRecord("clore_mcp.x", logging.WARNING, "", 0, text, (value,), None))

    assert passes("the list failed: %s", 1)
    assert not passes("the list failed: %s", 2)
    assert passes("the state failed: %s", 1)
    now = 3_600.0
    assert passes("the list failed: %s", 3)


def test_a_log_is_cut_at_a_line_and_the_one_who_writes_goes_on_behind_it(tmp_path: Path) -> None:
    log = tmp_path / LOG_NAME
    with log.open("a", encoding="utf-8") as said:
        for number in range(30_000):
            said.write(f"{number:09}\n")
        said.flush()
        shorten_log(tmp_path)
        said.write("the next\n")
    lines = log.read_text("utf-8").splitlines()
    assert 90_000 < log.stat().st_size <= 100_100
    assert [len(line) for line in lines[:-1]] == [9] * (len(lines) - 1)
    assert lines[-2:] == ["000029999", "the next"]
    before = log.read_bytes()
    shorten_log(tmp_path)
    assert log.read_bytes() == before, "short enough"
    shorten_log(tmp_path / "nowhere")
