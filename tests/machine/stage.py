"""One world of a run: the market, the state folder, the processes, their commands and their replies."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from clore_mcp.store.database import FILE_NAME
from tests.machine import clients
from tests.machine.child import Birth
from tests.machine.clients import ROLES, Client
from tests.machine.consents import ASKED_LASTS
from tests.machine.halts import Halt
from tests.machine.invariants import Oracle
from tests.machine.market import ENV_VALUE, FIRST_TAG, WATCH_VALUE, Json, Market, environment, tags_of
from tests.machine.names import Broken
from tests.machine.oracle import Caps
from tests.machine.terminal import Terminal

IMAGES: Final = ("cloreai/jupyter:ubuntu24.04-v2", "pytorch/pytorch:latest")
_REST_SECONDS: Final = 1.5
_BEFORE_TIME_PASSES_SECONDS: Final = 5.0
_AGAIN_AFTER: Final = 0.1  # a process between two steps may look wrong for a moment
_SETTLE_ROUNDS: Final = 6
_MEMORY: Final = Path("/dev/shm")  # every write is synchronous, which costs nothing in memory


def _key(name: str, arguments: Json) -> str:
    return f"{name} {sorted(arguments.items(), key=str)}"


class Stage:
    """Everything that a step of the machine acts on."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="clore-machine-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.market = Market(self.folder)
        self.caps = Caps()
        self.oracle = Oracle(self.market, self.folder, self.caps, lambda: self.rest(0))
        self.consents = self.oracle.consents
        self.consents.models = self.market.models
        self.people: list[Client | None] = [None] * len(ROLES)
        self.told: list[str] = []
        self.terminal = Terminal(self.oracle, self.folder)
        self._tags: dict[str, int] = {}
        self.wishes: list[tuple[int, Json]] = []  # who made which call
        self.watch_tags: set[int] = set()
        self._calls = 0
        self._looks = 0

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.terminal.close()
        self.market.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def made_here(self) -> list[int]:
        """Return the orders that this world's assistants made."""
        return [row["id"] for row in self.market.orders() if row["id"] not in self.market.elsewhere]

    def made_by_watches(self) -> list[int]:
        """Return the orders among them that a watch made."""
        return [row["id"] for row in self.market.orders() if self.watch_tags.intersection(tags_of(row))]

    @property
    def clients(self) -> list[Client]:
        return [one for one in self.people if one is not None and one.state not in ("dead", "gone")]

    # Processes

    def client(self, number: int) -> Client:
        """Return the process of a role. It is started if there is none."""
        role = ROLES[number]
        held = self.people[number]
        if held is not None and held.state == "dead":
            held.close()
        if held is None or held.state == "gone":
            env = environment(self.market, self.folder, role.mode, self.caps.environment())
            birth = Birth(role, env, str(self.folder), str(self.market.clock_path))
            held = self.people[number] = clients.start(role, birth)
        return held

    def free(self, wanted: int) -> int:
        """Return the wanted role, or the next one whose process is idle or not started."""
        order = [(wanted + step) % len(ROLES) for step in range(len(ROLES))]
        held = [self.people[number] for number in order]
        return next(
            (n for n, one in zip(order, held, strict=True) if one is None or one.state in ("idle", "dead")), wanted
        )

    def rest(self, seconds: float = _REST_SECONDS) -> None:
        """Wait until nothing moves by itself any more, for up to that many seconds."""
        clients.listen(self.clients, self._heard, seconds=seconds)

    def _heard(self, client: Client, event: dict[str, Any]) -> None:
        if event.get("leaked"):
            self.oracle.leaked.append(f"{client}: {event['event']}")
        match event["event"]:
            case "asked":
                client.question = event["text"]
                client.can_ask = client.can_ask and event["answer"] != "error"
                if event["answer"] == "yes":
                    self.consents.yes(event["text"], event["at"], ASKED_LASTS)
            case "done":
                self._watch_told(client, event)
                self.told[-1] += f" · {client.name}: {event['told']}"
                if "declined" in event["told"] and client.question:
                    self.consents.no(client.question)
                client.question = ""
            case what:
                self.told[-1] += f" · {client.name}: {what} {event.get('place', '')}"

    def _watch_told(self, client: Client, event: dict[str, Any]) -> None:
        """Record what a watch's call has shown: when a watch within the limits ends, or that one was cancelled."""
        call = client.call
        if "number" in call:
            self.consents.watch_begun(call["number"], call["arguments"]["expires_hours"], event["at"])
        if "watch" in call and event["told"][0] in ("cancelled", "expired", "fired"):
            self._called_off(call["watch"], event["at"], but=client)

    def _called_off(self, watch: Json, now: float, *, but: Client | None = None) -> None:
        moving = any(one is not but and one.state in ("busy", "stopped") for one in self.clients)
        self.consents.call_off(watch["quote_id"], tags_of(watch["ask"])[0], now, moving=moving)

    # What assistants and people do

    def _tag(self, name: str, arguments: Json) -> int:
        """Return the port that marks this request of this caller."""
        tag = self._tags.setdefault(_key(name, arguments), FIRST_TAG + len(self._tags))
        self.oracle.callers[tag] = name
        return tag

    def wish(self, number: int, arguments: Json) -> Json:
        """Return the arguments of a create, with the port that marks this request of this caller."""
        tag = self._tag(ROLES[number].name, arguments)
        env = {"HF_TOKEN": ENV_VALUE}
        return {**arguments, "ports": {str(tag): "tcp"}, "env": env, "jupyter": arguments["image"] == IMAGES[0]}

    def create(self, number: int, arguments: Json, answer: str, halt: Halt | None, copies: int = 1) -> bool:
        """Make this call in a process. Returns False if none is free."""
        number = self.free(number)
        client = self.client(number)
        if client.state != "idle":
            return False
        wish = self.wish(number, arguments)
        self.wishes.append((number, arguments))
        if client.role.mode == "limits":
            tag = int(next(iter(wish["ports"])))
            for _ in range(copies):
                self._calls += 1
                self.consents.limits_decide(self._calls, wish, tag, self.market.clock.now())
        client.begin(tool="create_order", arguments=wish, answer=answer, halt=halt, copies=copies)
        return True

    def watch(self, number: int, arguments: Json, answer: str, halt: Halt | None) -> bool:
        """Ask for a watch in a process. Returns False if none is free."""
        number = self.free(number)
        client = self.client(number)
        if client.state != "idle":
            return False
        tag = self._tag(client.role.name, arguments)
        self.watch_tags.add(tag)
        wish = {**arguments, "ports": {str(tag): "tcp"}, "env": {"HF_TOKEN": WATCH_VALUE}, "image": IMAGES[1]}
        about = {}
        if client.role.mode == "limits":
            self._calls += 1
            about["number"] = self._calls
            self.consents.limits_watch(self._calls, wish, tag, self.market.clock.now())
        client.begin(tool="create_watch", arguments=wish, answer=answer, halt=halt, copies=1)
        client.call.update(about)
        return True

    def watches(self) -> list[Json]:
        """Return the waiting watches: their ids, their requests and the quotes that asked for them."""
        path = self.folder / "state" / FILE_NAME
        with contextlib.suppress(sqlite3.OperationalError):
            if path.exists():
                with contextlib.closing(sqlite3.connect(path)) as db:
                    rows = db.execute("SELECT id, quote_id, ask FROM watches WHERE state = 'waiting' ORDER BY rowid")
                    return [{"id": row[0], "quote_id": row[1], "ask": json.loads(row[2])} for row in rows]
        return []

    def call_off(self, number: int, watch: Json, halt: Halt | None) -> bool:
        """Cancel a watch in a process. Returns False if none is free."""
        client = self.client(self.free(number))
        if client.state != "idle":
            return False
        arguments = {"watch_id": watch["id"]}
        client.begin(tool="cancel_watch", arguments=arguments, answer="no", halt=halt, copies=1)
        client.call["watch"] = watch
        return True

    def decline(self, watch: Json) -> bool:
        """Decline a watch in a terminal, as the person."""
        if not self.terminal.decline(watch["id"]):
            return False
        self._called_off(watch, self.market.clock.now())
        return True

    def act(self, number: int, tool: str, arguments: Json, answer: str, halt: Halt | None) -> bool:
        """Make any other call. Returns False if no process is free."""
        client = self.client(self.free(number))
        if client.state != "idle":
            return False
        client.begin(tool=tool, arguments=arguments, answer=answer, halt=halt, copies=1)
        return True

    def answer(self, client: Client, answer: str) -> None:
        """Give the delayed answer of the person at a client."""
        if answer == "yes":
            self.consents.yes(client.question, self.market.clock.now(), ASKED_LASTS)
        client.answer(answer)

    def freeze(self) -> bool:
        """Freeze all spending, as `clore-mcp stop` does."""
        self.rest(0)
        asking = [one for one in self.clients if one.state == "asking"]
        moving = any(one.state in ("busy", "stopped") for one in self.clients)
        return self.terminal.freeze(moving=moving, open_questions=[one.question for one in asking])

    def end_all(self, number: int, halt: Halt | None) -> bool:
        """Do the next part of `clore-mcp stop`: end everything made here, and orders that appear later."""
        client = self.client(self.free(number))
        if client.state != "idle":
            return False
        ours = self.made_here()
        self.consents.cancels.update(ours)
        self.oracle.unwanted.update(ours)
        client.end_all(halt)
        return True

    # Time, and what is judged

    def advance(self, seconds: float) -> None:
        """Let time pass. Running processes would have checked their leases each minute. Here one does so at every
        lease's end, and up to two do so at the last moment. Calls under way get their time first. Only stopped
        processes may have hours between a check and the send."""
        self.rest(_BEFORE_TIME_PASSES_SECONDS)
        until = self.market.clock.now() + seconds
        while True:
            now = self.market.clock.now()
            ends = [end + 30 for end in self._ends() if now < end + 30 < until]
            self.market.advance(max(0.0, min([until, *ends]) - now))
            self.poll(1 if ends else 2)
            if not ends:
                return

    def _ends(self) -> list[float]:
        with contextlib.suppress(sqlite3.OperationalError):
            if (self.folder / "state" / FILE_NAME).exists():
                with contextlib.closing(sqlite3.connect(self.folder / "state" / FILE_NAME)) as db:
                    return [row[0] for row in db.execute("SELECT ends_api_at FROM orders WHERE ended_at IS NULL")]
        return []

    def poll(self, most: int) -> None:
        """Let up to `most` idle processes check the leases, in turns. After one, the others find it done."""
        for _ in range(most):
            free = [one for one in self.clients if one.state == "idle"]
            if not free:
                return
            self._looks += 1
            free[self._looks % len(free)].poll()
            self.rest()

    def check(self, *, settled: bool = False) -> None:
        """Check the invariants. A failure while something moves is checked once more."""
        try:
            self.oracle.check(settled=settled)
        except Broken:
            if not any(one.state == "busy" for one in self.clients):
                raise
            time.sleep(_AGAIN_AFTER)
            self.oracle.check(settled=settled)

    def settle(self) -> None:
        """Let everything come to rest: end faults, resume stopped processes, let hidden orders appear, and check the
        leases."""
        self.market.mend()
        for client in self.clients:
            if client.state == "stopped":
                client.resume()
        self.rest()
        for client in self.clients:
            if client.state == "asking":
                self.answer(client, "no")
        self.rest()
        if not any(one.state == "idle" for one in self.clients):
            self.client(0)
        self.market.advance(3_700)  # by then everything that appears late has appeared
        for _ in range(_SETTLE_ROUNDS):
            self.advance(200)
            if not self._open():
                break
        if self.oracle.frozen:
            self.end_all(0, None)
            self.rest()

    def _open(self) -> bool:
        path = self.folder / "state" / FILE_NAME
        if not path.exists():
            return False
        with contextlib.closing(sqlite3.connect(path)) as db:
            found = db.execute(
                "SELECT (SELECT count(*) FROM intents WHERE state IN ('reserved', 'sending', 'failed'))"
                " + (SELECT count(*) FROM quotes WHERE state = 'committing')"
            ).fetchone()
        return bool(found[0])
