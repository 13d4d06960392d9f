"""The simulated API alone: its URL first, a clean end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import httpx2 as httpx
import pytest

from clore_mcp.cli.serve import SANDBOX_URL_FILE
from tests.world import World


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C can't be sent to one process there")
def test_the_url_is_the_first_line_and_ctrl_c_ends_it_cleanly(world: World) -> None:
    options = f"--servers 5 --seed 7 --key {'k' * 32}".split()
    command = [sys.executable, "-W", "error", "-m", "clore_mcp", "sandbox", *options]
    with subprocess.Popen(command, env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        assert len(httpx.get(f"{url}/marketplace").json()["servers"]) == 5
        assert httpx.get(f"{url}/wallets", headers={"auth": "k" * 32}).json()["code"] == 0
        child.send_signal(signal.SIGINT)
        rest, how = child.communicate(timeout=60)
    assert (child.returncode, rest) == (0, "")
    assert f"  export CLORE_API_URL={url}\n  export CLORE_API_KEY={'k' * 32}\n" in how


def test_what_can_not_be_is_said(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = world.run("sandbox", "--port", str(port))
    assert (done.code, f"Port {port} can't be used" in done.err) == (1, True)
    assert world.run("sandbox", "--port", "70000").code == 2
    assert world.run("sandbox", "--fault", "nonsense").code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize("leads", ["nowhere", "elsewhere"])
def test_the_url_of_the_market_inside_a_server_is_not_written_through_a_link(world: World, leads: str) -> None:
    target = world.folder / "target"
    if leads == "elsewhere":
        target.write_text("somebody's file", encoding="utf-8")
    link = world.state / "sandbox" / SANDBOX_URL_FILE
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    done = world.run("--sandbox")
    assert (target.read_text(encoding="utf-8") if target.exists() else None) == (
        "somebody's file" if leads == "elsewhere" else None
    )
    assert (done.code, done.out) == (1, "")
    assert "it is a link; remove it" in " ".join(done.err.split())
    assert str(link) in "".join(done.err.split())
    link.unlink()
    assert world.run("--sandbox").code == 0
    assert link.read_text(encoding="utf-8").startswith("http://127.0.0.1:")
