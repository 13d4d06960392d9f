"""Starting and stopping: flags, announcement, quiet, and nothing left behind."""

import argparse
import asyncio
import contextlib
import gc
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import httpx2 as httpx
import pytest

import clore_mcp.sandbox
from clore_mcp.sandbox import SANDBOX_KEY, Options, add_arguments, from_args, serve, start_in_thread
from clore_mcp.sandbox.engine import Clock, digest
from clore_mcp.sandbox.listeners import _OrderPort

SERVE = """
from clore_mcp.sandbox import Options, serve
serve(Options(servers=5, rate_limit="off"), 0, lambda url: print(url, flush=True))
"""


@contextlib.contextmanager
def _served() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", SERVE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()  # a failed assertion must not wait for a server that nobody stops


def parse(*words: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_args(parser.parse_args(words))


def test_every_option_has_a_flag_and_the_default_is_the_records() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert {action.dest for action in parser._actions} - {"help"} == {f.name for f in fields(Options)}
    assert parse() == Options()
    assert "required_price" in parser.format_help()


def test_flags_become_options() -> None:
    words = "--seed 7 --hostile --no-ssh-listener --outbid vanishes --key a --key b --fault *:reset --speed 60"
    assert parse(*words.split(), "--hostile-endpoints", "5") == Options(
        seed=7,
        hostile=True,
        ssh_listener=False,
        outbid="vanishes",
        keys=("a", "b"),
        faults=("*:reset",),
        speed=60.0,
        hostile_endpoints=(5,),
    )
    with pytest.raises(SystemExit):
        parse("--outbid", "sometimes")


def test_the_public_names_are_the_promised_ones() -> None:
    assert all(hasattr(clore_mcp.sandbox, name) for name in clore_mcp.sandbox.__all__)
    assert len(SANDBOX_KEY) == 32


def test_the_sandbox_imports_nothing_of_ours() -> None:
    code = (
        "import sys, clore_mcp.sandbox\n"
        "ours = [m for m in sys.modules if m.startswith('clore_mcp.') and not m.startswith('clore_mcp.sandbox')]\n"
        "sys.exit(str(ours) if ours else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_announced_url_answers_and_nothing_else_is_written() -> None:
    with _served() as child:
        assert child.stdout is not None
        url = child.stdout.readline().decode().strip()
        assert url.startswith("http://127.0.0.1:")
        assert len(httpx.get(f"{url}/marketplace").json()["servers"]) == 5
        httpx.post(f"{url.removesuffix('/v1')}/_sandbox/faults", json={"kind": "reset"})
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/marketplace")
        child.terminate()
        assert child.communicate(timeout=60) == (b"", b"")


def test_an_interrupt_ends_serving_without_a_traceback() -> None:
    with _served() as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=60) == (b"", b"")
    assert child.returncode == 0


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve(Options(servers=5), taken.getsockname()[1], lambda url: None)


def test_stopping_leaves_no_thread_and_no_socket() -> None:
    threads = set(threading.enumerate())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        running = start_in_thread(Options(servers=30, speed=1000.0))
        with httpx.Client(base_url=running.url, headers={"auth": SANDBOX_KEY}) as client:
            row = next(r for r in client.get("/marketplace").json()["servers"] if not r["rented"])
            order = {"currency": row["allowed_coins"][0], "image": "x", "renting_server": row["id"]}
            httpx.post(f"{running.control_url}/orders", json={**order, "type": "on-demand", "ports": {"22": "tcp"}})
        running.stop()
        running.stop()
        gc.collect()
    assert set(threading.enumerate()) == threads
    assert [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port))


def open_sockets(port: int) -> list[socket.socket]:
    """The sockets of this process that are still open at their end of that port."""
    sockets = [found for found in gc.get_objects() if isinstance(found, socket.socket) and found.fileno() != -1]
    return [found for found in sockets if found.family == socket.AF_INET and found.getsockname()[1] == port]


@pytest.mark.parametrize("turns", range(8))
def test_a_guest_who_arrives_in_the_instant_of_the_stop_leaves_no_socket_open(turns: int) -> None:
    running = start_in_thread(Options(servers=5))
    loop = running._server._loop
    guest = socket.socket()

    def arrive() -> None:  # in the sandbox's own loop, so that it stops that many turns later
        guest.connect(("127.0.0.1", running.port))
        wait(turns)

    def wait(left: int) -> None:
        if left:
            loop.call_soon(wait, left - 1)
        else:
            running._server.stop()

    loop.call_soon_threadsafe(arrive)
    running._thread.join(60)
    running.stop()
    assert open_sockets(running.port) == []
    guest.close()


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.anyio
async def test_a_guest_at_an_order_s_port_that_closes_leaves_no_socket_open(turns: int) -> None:
    door = _OrderPort()
    await door.open()
    with socket.create_connection(("127.0.0.1", door.port)):
        for _ in range(turns):
            await asyncio.sleep(0)
        await door.close()
        await asyncio.sleep(0)
        assert open_sockets(door.port) == []


def test_the_clock_runs_at_its_speed_and_never_back() -> None:
    real = 100.0
    clock = Clock(60.0, real=lambda: real)
    start = clock.now()
    real += 10
    assert clock.now() - start == pytest.approx(600)
    clock.set_speed(0)
    clock.advance(5)
    real += 10
    assert clock.now() - start == pytest.approx(605)
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="forward"):
        clock.set_speed(-1)


def test_no_module_grows_past_its_screenfuls() -> None:
    folder = Path(clore_mcp.sandbox.__file__).parent
    sizes = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in folder.glob("*.py")}
    assert {name: size for name, size in sizes.items() if size > 350} == {}


def test_a_digest_names_a_key_without_showing_it() -> None:
    assert digest("secret") not in ("secret", digest("other"))
