"""Ends of orders as real processes keep them, each on a market of its own, with that market's record as the witness.

The market lives twelve times as fast as this machine, and what polls it is told so by its gap between two requests: a
poll is 60 market seconds, and five of ours. That leaves a machine that does eight things at once time for its round.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from clore_mcp.sandbox import Options, start_in_thread
from tests.cli.watchdogs import Kennel, Server, lives, until
from tests.conftest import delete_state, watchdogs_started
from tests.terminal import PATIENCE
from tests.world import KEYS, World

SPEED: Final = 12.0
POLL: Final = 60.0  # market seconds
HOUR: Final = 3_600.0
_GAP: Final = 1.1 / SPEED
_MARKET: Final = Options(servers=300, rate_limit="off", keys=KEYS[:1], ssh_listener=False)
_PATIENT: Final = 150.0  # a whole scene goes by on a machine that does eight things at once
# Makes the clock of a process wrong by what a file says. Python runs it at each start, whoever starts the process.
_WRONG_CLOCK: Final = """
import os, time
def wrong(right=time.time, file=os.environ["WRONG_BY"]):
    with open(file) as told:
        return right() + float(told.read() or 0)
time.time = wrong
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an order ended: polls after its lease, how many of them there was a reason for, and the cancels that Clore
    saw: those it answered, and those that came when the order was gone."""

    scene: str
    polls: float
    excused: float
    cancels: int
    after: int


@dataclass
class Stage:
    """One market, one person's machine, and the processes on it."""

    world: World
    kennel: Kennel
    servers: list[Server] = field(default_factory=list)
    ends_at: float = 0.0
    order_id: int = 0
    excused: float = 0.0

    def server(self, **env: str) -> Server:
        made = Server(self.world, **env)
        self.servers.append(made)
        return made

    def rent(self, hours: float = 1.0, watchdog: str = "auto") -> Server:
        """A server over stdio makes an order; `watchdog` is CLORE_WATCHDOG."""
        server = self.server(CLORE_WATCHDOG=watchdog)
        made = server.rent(hours=hours)
        self.order_id, self.ends_at = made["order_id"], datetime.fromisoformat(made["ends_at"]).timestamp()
        return server

    def watched(self, hours: float = 1.0) -> subprocess.Popen[bytes]:
        """A watchdog that works as a service and has seen the order of a server that was killed since."""
        process = self.watchdog()
        self.beats()
        self.rent(hours, watchdog="off").kill()
        before = self.asked.count("my_orders")
        until(lambda: self.asked.count("my_orders") > before, "a look")
        return process

    def watchdog(self) -> subprocess.Popen[bytes]:
        """One that works, as a service starts it."""
        process = self.kennel.start()
        self.kennel.hears(process, "Ending orders")
        return process

    def beats(self) -> None:
        """Wait for a round that was all right."""
        until(lambda: any(owner.startswith("watchdog-") for owner in self.world.beats()), "a heartbeat")

    def near(self, left: float = POLL) -> None:
        """Go on to so many market seconds before the end, and then twelve times as fast as this machine."""
        advance = self.ends_at - left - self.now
        assert advance > 0, "the machine was too slow for this scene: its order is over before it begins"
        self.world.post("/clock", {"advance": advance})
        self.world.post("/clock", {"speed": SPEED})

    @property
    def now(self) -> float:
        return float(self.world.post("/clock", {})["now"])

    @property
    def orders(self) -> list[dict[str, Any]]:
        """All that the market knows of."""
        return self.world.orders()

    @property
    def order(self) -> dict[str, Any]:
        return next(row for row in self.orders if row["id"] == self.order_id)

    def cancels(self) -> list[dict[str, Any]]:
        """Every one that came to the market, in that order."""
        return self.world.sent("cancel_order")

    @property
    def asked(self) -> list[str]:
        """The endpoints that were asked for, in that order."""
        return [row["endpoint"] for row in self.world.get("/requests")["requests"]]

    def _over(self) -> bool:
        """Whether who ends orders has had its time to do it once more."""
        asked = self.asked
        last = len(asked) - asked[::-1].index("cancel_order")
        return bool(self.world.rows("SELECT order_id FROM orders WHERE ended_at IS NOT NULL")) or (
            asked[last:].count("my_orders") > 2
        )

    def past_end(self, polls: float = 0.0) -> None:
        """Wait for the end of the lease, by the market's clock."""
        until(lambda: self.now >= self.ends_at + polls * POLL, "the end of the lease", _PATIENT)

    def set_clock(self, seconds: float) -> None:
        """Make this machine's clock wrong by so many seconds, in every process at once."""
        file = Path(self.world.env["WRONG_BY"])
        fresh = file.with_suffix(".fresh")
        fresh.write_text(str(seconds))
        fresh.replace(file)

    def told(self, scene: str) -> Outcome:
        """Wait for the end of the order; how it came."""
        until(lambda: self.order["ended_at"], "the order ends", _PATIENT)
        until(self._over, "it is recorded, or looked at twice more", _PATIENT)
        order = self.order
        assert order["end_reason"] == "cancelled", order
        assert order["ended_at"] >= self.ends_at, f"cancelled {self.ends_at - order['ended_at']:.1f} s early"
        sent = self.cancels()
        worked = next(place for place, row in enumerate(sent) if row["effect"])
        polls = (order["ended_at"] - self.ends_at) / POLL
        return Outcome(scene, polls, self.excused / POLL, len(sent), len(sent) - worked - 1)


def closed_chat(stage: Stage) -> None:
    """Chat closed, server killed"""
    server = stage.rent()
    until(lambda: watchdogs_started(stage.world.state), "a watchdog of its own")
    stage.beats()
    server.kill()
    stage.near()


def started_again(stage: Stage) -> None:
    """Watchdog killed and started again"""
    stage.watched().kill()
    stage.near()
    stage.watchdog()


def two_watchdogs(stage: Stage) -> None:
    """Two watchdogs, the first one killed as the lease ends"""
    first = stage.watched()
    second = stage.kennel.start()
    stage.kennel.hears(second, "Waiting until it exits")
    stage.near()
    stage.past_end()
    first.kill()


def all_at_once(stage: Stage) -> None:
    """Two servers and a watchdog, all awake at the very end"""
    stage.rent(hours=0.008).kill()
    for _ in range(2):  # each looks as it starts, and sleeps to the very end
        stage.server()
    stage.world.post("/options", {"latency": 1.0})  # as long as their ideas of Clore's time may be apart


def outage(stage: Stage) -> None:
    """Clore down for an hour"""
    stage.watched(hours=0.006)
    stage.world.post("/faults", {"kind": "outage", "seconds": 1_000})
    began = stage.now
    stage.world.post("/clock", {"speed": HOUR / 16})
    until(lambda: stage.now >= began + HOUR and stage.cancels(), "an hour, and cancels that nobody hears", _PATIENT)
    stage.world.post("/clock", {"speed": SPEED})
    stage.excused = stage.now - stage.ends_at
    stage.world.mend()


def clock_back(stage: Stage) -> None:
    """This machine's clock set back an hour"""
    stage.watched()
    stage.near(2 * POLL)
    stage.set_clock(-HOUR)


def clock_forward(stage: Stage) -> None:
    """This machine's clock set forward an hour while Clore is down"""
    stage.watched()
    stage.near(2 * POLL)
    stage.world.post("/clock", {"speed": 0})
    stage.world.post("/faults", {"kind": "outage", "seconds": 1_000})
    stage.set_clock(HOUR)
    before = stage.asked.count("my_orders")
    until(lambda: stage.asked.count("my_orders") > before + 4, "a round that sees nothing, and the next", _PATIENT)
    assert stage.cancels() == [], "by no clock of this machine is it over"
    stage.world.mend()
    stage.world.post("/clock", {"speed": SPEED})


def frozen(stage: Stage) -> None:
    """Watchdog stopped (as by a machine that sleeps), and woken three polls after the end"""
    watchdog = stage.watched()
    watchdog.send_signal(signal.SIGSTOP)
    stage.near()
    stage.past_end(polls=3)
    stage.excused = stage.now - stage.ends_at
    watchdog.send_signal(signal.SIGCONT)


def killed_after(stage: Stage) -> None:
    """Watchdog killed after its cancel worked, before it knew"""
    _killed_amid(stage, "hang_after")


def killed_before(stage: Stage) -> None:
    """Watchdog killed after its cancel left, before it worked"""
    _killed_amid(stage, "hang_before")


def _killed_amid(stage: Stage, kind: str) -> None:
    first = stage.watched()
    stage.world.post("/faults", {"kind": kind, "endpoint": "cancel_order", "seconds": 600})
    stage.near()
    until(stage.cancels, "a cancel", _PATIENT)
    first.kill()
    first.wait(PATIENCE)
    stage.watchdog()
    stage.excused = stage.now - stage.ends_at


def killed_create(stage: Stage) -> None:
    """Server killed while its create was on its way"""
    stage.world.post("/faults", {"kind": "hang_after", "endpoint": "create_order", "seconds": 600})
    server = stage.server()
    server.send_rent(hours=1)
    until(lambda: stage.orders, "the order", _PATIENT)
    server.kill()
    [order] = stage.orders
    stage.order_id, stage.ends_at = order["id"], order["ct"] + HOUR
    stage.set_clock(120)  # from then on nobody waits for the server
    until(lambda: stage.world.rows("SELECT order_id FROM orders"), "the order is adopted", _PATIENT)
    stage.near()


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (
    closed_chat, started_again, two_watchdogs, all_at_once, outage, clock_back, clock_forward, frozen, killed_after,
    killed_before, killed_create,
)  # fmt: skip


_WRONG_CLOCKS: Final = (clock_back, clock_forward, killed_create)


def play(scene: Callable[[Stage], None], folder: Path) -> Outcome:
    """One scene to its end; no process of it is left."""
    with _stage(folder, scene in _WRONG_CLOCKS) as stage:
        scene(stage)
        return stage.told(str(scene.__doc__))


def _with_a_wrong_clock(site: Path) -> dict[str, str]:
    """What a process needs in its environment for that: a start of its own, too."""
    site.mkdir()
    (site / "sitecustomize.py").write_text(_WRONG_CLOCK)
    (site / "wrong_by").write_text("0")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "WRONG_BY": str(site / "wrong_by")}


@contextmanager
def _stage(folder: Path, wrong_clock: bool) -> Iterator[Stage]:
    folder.mkdir()
    with start_in_thread(_MARKET) as running:
        usual = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
        wrong = _with_a_wrong_clock(folder / "site") if wrong_clock else {}
        world = World(running, folder, KEYS[0], usual | wrong | {"CLORE_REQUEST_GAP_SECONDS": f"{_GAP:.4f}"})
        stage = Stage(world, Kennel(world))
        try:
            yield stage
        finally:
            world.mend()
            stage.kennel.end()
            for server in stage.servers:
                server.kill()
            started = watchdogs_started(world.state)
            delete_state(world.state)  # the watchdog that a server started ends with it
            until(lambda: not any(map(lives, started)), "no process is left")
            world.close()
