"""The prompts: the shipped files, their form, what they say with and without arguments, and where they are offered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import MCPError
from mcp.types import INVALID_PARAMS

from clore_mcp import prompts
from clore_mcp.errors import SettingsInvalid
from clore_mcp.prompts import FilePrompt, folder, parse, read_all
from clore_mcp.server import chosen_tools, create_server
from clore_mcp.settings import Settings

from .conftest import Connect, Mode, say

NAMES = ["auto-rent-below", "connect", "cost-review", "monitor-orders", "rent-cheapest"]
REPO = Path(__file__).parents[2]
FILES = {file.name: file for file in read_all(folder())}
SAMPLE = {
    "gpu": "RTX 4090",
    "hours": "2.5",
    "max_usd_per_hour": "0.41",
    "countries": "DE, europe",
    "image": "cloreai/torch:2.0.1",
    "order_id": "1939941",
    "expires_hours": "37",
    "budget_usd_per_day": "12",
}
WELL_FORMED = """\
---
title: Try it
description: Try one thing.
arguments:
  - name: gpu
    description: The GPU
    required: true
  - name: hours
    description: How long
---
Find {gpu} with `search_servers`.

- For so many hours: {hours}

Ports look like {"8888":"http"} and {gpu} stays.
"""


@pytest.mark.anyio
async def test_all_five_are_listed_with_title_description_and_described_arguments(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        listed = (await client.list_prompts()).prompts
    assert [prompt.name for prompt in listed] == NAMES
    for prompt in listed:
        assert prompt.title and prompt.description
        assert all(argument.description for argument in prompt.arguments or [])
    required = {prompt.name: [a.name for a in prompt.arguments or [] if a.required] for prompt in listed}
    assert required == {
        "auto-rent-below": ["gpu", "max_usd_per_hour", "hours"],
        "connect": [],
        "cost-review": [],
        "monitor-orders": [],
        "rent-cheapest": ["gpu"],
    }


@pytest.mark.anyio
async def test_every_prompt_renders_with_every_argument_and_with_the_required_ones_alone(
    connect: Connect, mode: Mode
) -> None:
    async with connect(mode) as client:
        for name, file in FILES.items():
            everything = {argument.name: SAMPLE[argument.name] for argument in file.arguments}
            told = await say(client, name, **everything)
            assert all(value in told for value in everything.values())
            alone = await say(client, name, **{a.name: SAMPLE[a.name] for a in file.arguments if a.required})
            assert len(told.splitlines()) > len(alone.splitlines())
            for text in (told, alone):
                assert not re.search(r"\{[a-z_]+\}|\n\n\n", text)
            assert not any(SAMPLE[a.name] in alone for a in file.arguments if not a.required and a.name != "hours")


@pytest.mark.anyio
async def test_a_missing_or_unknown_argument_is_refused_by_name(connect: Connect, mode: Mode) -> None:
    async with connect(mode) as client:
        with pytest.raises(MCPError, match=r"auto-rent-below needs max_usd_per_hour and hours\."):
            await client.get_prompt("auto-rent-below", {"gpu": "4090", "hours": " \u202e "})
        with pytest.raises(MCPError, match="rent-cheapest has no argument max_pirce; it takes countries, gpu"):
            await client.get_prompt("rent-cheapest", {"gpu": "4090", "max_pirce": "1"})


@pytest.mark.anyio
async def test_a_prompt_that_is_not_there_is_the_callers_mistake(
    connect: Connect, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(mode) as client:
        with pytest.raises(MCPError, match=r"There is no prompt rent-dearest; prompts/list names them\.") as refused:
            await client.get_prompt("rent-dearest")
    assert refused.value.code == INVALID_PARAMS and not caplog.records


@pytest.mark.anyio
async def test_what_the_caller_gives_is_one_clean_line_and_never_filled_in_again(connect: Connect) -> None:
    async with connect() as client:
        told = await say(client, "rent-cheapest", gpu="4090\n\n# {hours}\u202e\x1b[2J" + "x" * 900, hours="3")
    (line,) = [line for line in told.splitlines() if line.startswith("- GPU: ")]
    assert line.startswith("- GPU: 4090 # {hours}[2Jxxx")
    assert len(line) <= len("- GPU: ") + prompts.ARGUMENT_MAX


@pytest.mark.anyio
async def test_prompts_need_no_key(connect: Connect, mode: Mode) -> None:
    async with connect(mode, CLORE_API_KEY="") as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == NAMES
        assert "RTX 4090" in await say(client, "rent-cheapest", gpu="RTX 4090")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("more", "left"),
    [
        ({"CLORE_READ_ONLY": "1"}, ["connect", "monitor-orders"]),
        ({"CLORE_TOOLSETS": "orders"}, ["connect"]),
        ({"CLORE_TOOLSETS": "market,account"}, []),
        ({"CLORE_TOOLSETS": "market,orders"}, ["connect", "rent-cheapest"]),
        ({"CLORE_TOOLSETS": "market,orders,watches"}, ["auto-rent-below", "connect", "rent-cheapest"]),
        ({"CLORE_TOOLSETS": "orders,account,watches"}, ["connect", "monitor-orders"]),
    ],
)
async def test_a_prompt_whose_tools_are_off_is_not_listed(
    connect: Connect, more: dict[str, str], left: list[str]
) -> None:
    async with connect(**more) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == left


def test_every_tool_that_a_prompt_names_exists_and_each_names_some(tmp_path: Path) -> None:
    known = {tool.name for tool in chosen_tools(Settings(state_dir=tmp_path))}
    for file in FILES.values():
        named = set(re.findall(r"`([a-z]+_[a-z_]+)`", file.body))
        assert named and named <= known, file.name
        assert file.tools == named


def test_no_prompt_teaches_a_way_around_the_person() -> None:
    for file in FILES.values():
        assert not re.search(r"clore-mcp (approve|settle|stop)|CLORE_APPROVAL|CLORE_MAX|limits\.toml|--yes", file.body)


def test_a_watch_is_asked_about_once_and_what_it_then_does_unasked_is_said() -> None:
    watch = FILES["auto-rent-below"]
    assert "create_order" not in watch.tools and "I answer that question myself" in watch.body
    assert "without asking again" in watch.body and "not while that computer sleeps" in watch.body
    assert re.search(r"when this\s+chat is closed", watch.body) and "`cancel_watch` takes it back" in watch.body


def test_no_prompt_has_the_assistant_look_again_and_again() -> None:
    for file in FILES.values():
        assert not re.search(r"every_minutes|every (so many|\d+) minutes|look(ing)? again and", file.body)
        assert "every_minutes" not in [argument.name for argument in file.arguments]
    for name in ("monitor-orders", "cost-review"):
        assert {"get_account", "list_watches"} <= FILES[name].tools


@pytest.mark.anyio
async def test_each_argument_that_a_prompt_tells_to_pass_is_one_of_the_tool(connect: Connect) -> None:
    async with connect() as client:
        schemas = {tool.name: set(tool.input_schema["properties"]) for tool in (await client.list_tools()).tools}
    told = {
        "create_watch": {"max_usd_per_hour", "hours", "image", "expires_hours", "min_reliability"},
        "search_servers": {"min_rental_hours"},
        "list_watches": {"include_ended"},
    }
    for tool, arguments in told.items():
        assert tool in FILES["auto-rent-below"].tools
        assert all(re.search(rf"\b{name}\b", FILES["auto-rent-below"].body) for name in arguments - {"hours"})
        assert arguments <= schemas[tool]


def test_a_well_formed_file_is_read_as_it_stands() -> None:
    file = parse(WELL_FORMED, "try")
    assert (file.title, file.description) == ("Try it", "Try one thing.")
    assert [(a.name, a.description, a.required) for a in file.arguments] == [
        ("gpu", "The GPU", True),
        ("hours", "How long", False),
    ]
    assert file.tools == {"search_servers"}
    assert file.fill({"gpu": "A100", "hours": None}) == (
        'Find A100 with `search_servers`.\n\nPorts look like {"8888":"http"} and A100 stays.'
    )


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "try.md").write_bytes(b"\xef\xbb\xbf" + WELL_FORMED.replace("\n", "\r\n").encode())
    (tmp_path / "README.md").write_text("Not a prompt.", encoding="utf-8")
    (read,) = read_all(tmp_path)
    assert read == parse(WELL_FORMED, "try")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("---\ntitle", "title", id="no-front-matter"),
        pytest.param("---\nFind", "Find", id="no-end"),
        pytest.param("title: Try it\n", "", id="no-title"),
        pytest.param("title: Try it", "title:", id="empty-title"),
        pytest.param("title: Try it", "title: Try it\ntitle: Again", id="twice"),
        pytest.param("arguments:", "arguments: none", id="inline"),
        pytest.param("arguments:\n", "", id="no-list"),
        pytest.param("  - name: gpu\n", "", id="no-name"),
        pytest.param("  - name: gpu", "  - name: GPU", id="bad-name"),
        pytest.param("    description: The GPU\n", "", id="undescribed"),
        pytest.param("required: true", "required: yes", id="required"),
        pytest.param("    required", "\trequired", id="tab"),
        pytest.param("description: Try", "author: Try", id="unknown-key"),
        pytest.param(WELL_FORMED[WELL_FORMED.index("Find") :], "\n", id="no-body"),
    ],
)
def test_a_malformed_file_is_refused_by_its_name(old: str, new: str) -> None:
    assert old in WELL_FORMED
    with pytest.raises(SettingsInvalid, match=r"try\.md does not have the form"):
        parse(WELL_FORMED.replace(old, new, 1), "try")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("  - name: hours", "  - name: gpu", id="same-argument"),
        pytest.param("many hours: {hours}", "many hours: {hour}", id="placeholder"),
        pytest.param("{hours}", "2", id="unused"),
    ],
)
def test_the_text_uses_each_declared_argument_and_no_other(old: str, new: str) -> None:
    assert old in WELL_FORMED
    with pytest.raises(SettingsInvalid, match=r"try\.md declares the arguments .* and uses "):
        parse(WELL_FORMED.replace(old, new, 1), "try")


def test_a_file_that_is_no_text_or_no_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "try.md").write_bytes(b"---\ntitle: \xff\n")
    with pytest.raises(SettingsInvalid, match=r"The prompt try\.md can't be read"):
        read_all(tmp_path)
    (tmp_path / "try.md").unlink()
    (tmp_path / "try.md").mkdir()
    with pytest.raises(SettingsInvalid, match=r"The prompt try\.md can't be read"):
        read_all(tmp_path)


def test_a_misspelled_tool_stops_the_start_and_a_missing_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "try.md").write_text(WELL_FORMED.replace("search_servers", "search_server"), encoding="utf-8")
    monkeypatch.setattr(prompts, "folder", lambda: tmp_path)
    with pytest.raises(SettingsInvalid, match=r"try\.md names `search_server`, and there is no such tool"):
        create_server(Settings(state_dir=tmp_path))
    create_server(Settings(state_dir=tmp_path, read_only=True))
    monkeypatch.setattr(prompts, "folder", lambda: tmp_path / "gone")
    create_server(Settings(state_dir=tmp_path))
    assert "No prompts" in caplog.text


def test_importing_reads_no_file() -> None:
    check = (
        "import io, sys, pathlib\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import clore_mcp.server\n"
        "assert not [path for path in opened if path.endswith('.md')], opened\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=REPO, timeout=60)


def test_the_files_are_the_five_of_the_contract() -> None:
    assert sorted(FILES) == NAMES
    assert all(isinstance(file, FilePrompt) for file in FILES.values())
