"""The bundle: what is in it, that clients' own tools take it, and that a host starts it as it says.

After a change of the tools: `CLORE_STORE_DOCS=1 python -m pytest tests/packaging`, then read the diff.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # it has no types
import pytest
from mcp import Client

from clore_mcp.sandbox import Running
from clore_mcp.server import create_server
from clore_mcp.settings import ACCEPTED, Caps
from clore_mcp.watchdog_process import LOG_NAME
from release import bundle
from release.listing import Lists, listed
from release.versions import ROOT
from tests.cli.watchdogs import Server, active, lives, until
from tests.clients.environments import node_of, packages_of
from tests.conftest import environment, settings_for, watchdogs_started
from tests.world import World

MANIFEST = bundle.HERE / "manifest.json"
WRITERS = {"create_order", "extend_order", "cancel_order", "set_spot_price", "create_watch", "cancel_watch"}


@pytest.fixture
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return found


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The bundle as a host lays it down."""
    folder = tmp_path / "with a space" / "bundle"
    with zipfile.ZipFile(bundle.build(tmp_path / "dist")) as archive:
        archive.extractall(folder)
    return folder


def as_a_host_would(manifest: dict[str, Any], folder: Path, filled: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Command and environment, with defaults and what a person filled in; a field with neither is left as it is."""
    defaults = {name: field["default"] for name, field in manifest["user_config"].items() if "default" in field}
    words = {f"user_config.{name}": value for name, value in (defaults | filled).items() if value is not None}
    words["__dirname"] = str(folder)

    def put(text: str) -> str:
        def word(found: re.Match[str]) -> str:
            value = words.get(found[1], found[0])
            return str(value).lower() if isinstance(value, bool) else str(value)

        return re.sub(r"\$\{([^}]+)\}", word, text)

    config = manifest["server"]["mcp_config"]
    return [put(part) for part in (config["command"], *config["args"])], {
        name: put(value) for name, value in config["env"].items()
    }


@pytest.mark.anyio
async def test_the_manifest_has_the_servers_tools(manifest: dict[str, Any], tmp_path: Path) -> None:
    async with Client(create_server(settings_for({}, tmp_path))) as client:
        listed = (await client.list_tools()).tools
    real = [{"name": one.name, "description": re.split(r"(?<=\.) ", one.description or "")[0]} for one in listed]
    if os.environ.get("CLORE_STORE_DOCS"):
        rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in real)
        told = re.sub(r'(?<="tools": \[)[^\]]*(?=\])', lambda _: f"\n{rows}\n  ", MANIFEST.read_text(encoding="utf-8"))
        MANIFEST.write_text(told, encoding="utf-8", newline="\n")
        manifest = json.loads(told)
    assert manifest["tools"] == real, "the tools changed: CLORE_STORE_DOCS=1 python -m pytest tests/packaging"


def test_each_field_reaches_its_setting_with_the_real_default(manifest: dict[str, Any], tmp_path: Path) -> None:
    _, env = as_a_host_would(manifest, tmp_path, {})
    assert env.keys() <= ACCEPTED.keys()
    used = set(re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(manifest["server"])))
    assert used == set(manifest["user_config"])
    empty, unset = settings_for(env, tmp_path), settings_for({}, tmp_path)
    names = ("api_key", "read_only", "limits", "approval", "watchdog", "toolsets")
    assert [getattr(empty, name) for name in names] == [getattr(unset, name) for name in names]
    filled = {"api_key": "k" * 32, "read_only": True} | {f"max_{cap}": 1 for cap in Caps.__dataclass_fields__}
    real = settings_for(as_a_host_would(manifest, tmp_path, filled)[1], tmp_path)
    assert real.api_key is not None
    assert real.read_only
    assert all(getattr(real.limits, cap) == 1 for cap in Caps.__dataclass_fields__)


def test_the_key_alone_is_secret_and_nothing_is_required(manifest: dict[str, Any]) -> None:
    fields = manifest["user_config"]
    assert [name for name, field in fields.items() if field.get("sensitive")] == ["api_key"]
    assert not any(field.get("required") for field in fields.values())


def test_it_has_what_it_runs_and_nothing_that_tools_leave(unpacked: Path, manifest: dict[str, Any]) -> None:
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert {name for name in names if "/" not in name} == {
        "manifest.json", "pyproject.toml", "launch.py", "icon.png", "LICENSE", "README.md",
    }  # fmt: skip
    assert manifest["server"]["entry_point"] in names
    sources = (path for folder in ("clore_mcp", "prompts") for path in (ROOT / folder).rglob("*.*"))
    ours_alone = {path.relative_to(ROOT).as_posix() for path in sources if "__pycache__" not in path.parts}
    assert {name for name in names if name.startswith(("clore_mcp/", "prompts/"))} == ours_alone
    told = tomllib.loads((unpacked / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert told == {key: ours[key] for key in ("name", "requires-python", "dependencies")} | {
        "version": manifest["version"]
    }


def test_the_same_source_makes_the_same_bytes(tmp_path: Path) -> None:
    made = [bundle.build(tmp_path / name) for name in ("one", "two")]
    first, second = (hashlib.sha256(path.read_bytes()).digest() for path in made)
    assert first == second
    assert made[0].name == f"clore-mcp-{json.loads(MANIFEST.read_text(encoding='utf-8'))['version']}.mcpb"


def test_the_bundles_own_tool_takes_it(unpacked: Path, tmp_path: Path, home_of: Callable[[str], Path]) -> None:
    """The published schema and program, `mcpb`, as they come from npm."""
    home = home_of("node")
    package = packages_of(home) / "node_modules" / "@anthropic-ai" / "mcpb" / "dist"
    schema = json.loads((package / "mcpb-manifest-v0.4.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads((unpacked / "manifest.json").read_text(encoding="utf-8")), schema)

    def mcpb(*words: str) -> str:
        command = [node_of(home), str(package / "cli" / "cli.js"), *words]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "Manifest schema validation passes!" in mcpb("validate", str(unpacked / "manifest.json"))
    packed = tmp_path / "packed.mcpb"
    mcpb("pack", str(unpacked), str(packed))
    with zipfile.ZipFile(packed) as archive:
        theirs = set(archive.namelist())
    ours = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert theirs == ours, "packing leaves nothing out that it ignores by name"
    mcpb("unpack", str(next((tmp_path / "dist").glob("*.mcpb"))), str(tmp_path / "laid"))
    assert (tmp_path / "laid" / "launch.py").is_file()


def network() -> dict[str, str]:
    """How packages are had from here."""
    kept = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CACHE_DIR", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy")
    return {name: os.environ[name] for name in kept if name in os.environ}


def install(uv: str, folder: Path, env: dict[str, str]) -> None:
    """What the first start does, apart from it, so that a missing network is not taken for a fault of ours."""
    command = [uv, "sync", "--quiet", "--directory", str(folder)]
    made = subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", timeout=100)
    if made.returncode != 0 and "CI" not in os.environ and re.search("fetch|connect|dns", made.stderr, re.IGNORECASE):
        pytest.skip(f"what it needs can't be installed here: {made.stderr[-200:]}")
    assert made.returncode == 0, made.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there what runs can't be deleted")
def test_an_order_ends_though_its_bundle_was_deleted(manifest: dict[str, Any], unpacked: Path, world: World) -> None:
    """As a host does that updates it: source, dependencies and all, under the watchdog that it had started."""
    uv = pytest.importorskip("uv", reason="the host's uv is missing: pip install uv").find_uv_bin()
    world.env |= network()
    install(uv, unpacked, world.env)
    (_, *words), _ = as_a_host_would(manifest, unpacked, {})
    server = Server(world, [uv, *words])
    try:
        order_id = int(server.rent()["order_id"])
        until(lambda: watchdogs_started(world.state), "a watchdog of its own")
        until(lambda: world.rows("SELECT owner FROM heartbeats WHERE owner LIKE 'watchdog-%'"), "it beats")
    finally:
        server.kill()
    shutil.rmtree(unpacked)
    (pid,) = watchdogs_started(world.state)
    world.post("/faults", {"kind": "http502", "endpoint": "cancel_order", "times": 1})  # met without its code
    world.post("/clock", {"advance": 7_200})
    until(lambda: not active(world, order_id), "the watchdog ends it")
    until(lambda: not lives(pid), "and then itself")
    told = (world.state / LOG_NAME).read_text("utf-8")
    assert "Traceback" not in told
    assert "broke off" not in told


@pytest.mark.anyio
async def test_a_host_starts_it_and_it_lists_its_tools(
    manifest: dict[str, Any], unpacked: Path, tmp_path: Path, market: Running
) -> None:
    """With uv alone, from nothing: with the key's field left empty, read-only, and simulated."""
    uv = pytest.importorskip("uv", reason="the host's uv is missing: pip install uv")
    base = environment(market, tmp_path) | {"PATH": os.environ["PATH"]} | network()
    del base["CLORE_API_KEY"]

    async def told(filled: dict[str, Any]) -> Lists:
        (_, *words), env = as_a_host_would(manifest, unpacked, filled)
        return await listed([uv.find_uv_bin(), *words], base | env)

    install(uv.find_uv_bin(), unpacked, base)
    every = [tool["name"] for tool in manifest["tools"]]
    prompts = sorted(path.stem for path in (ROOT / "prompts").glob("*.md"))
    assert await told({"api_key": None}) == Lists(every, prompts), "a placeholder that the host left is no key"
    assert (await told({"read_only": True})).tools == [name for name in every if name not in WRITERS]
    state = Path(base["CLORE_STATE_DIR"])
    assert not list(state.parent.rglob("url"))
    assert await told({"sandbox": True}) == Lists(every, prompts)
    assert list(state.parent.rglob("url")), "the simulated marketplace ran and left its address"
