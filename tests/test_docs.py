"""The documents say what is there: tables come from the code, links lead somewhere, named commands exist.

After a change that is meant: `CLORE_STORE_DOCS=1 python -m pytest tests/test_docs.py`, then read the diff.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from mcp import Client
from mcp.types import Tool

from clore_mcp.cli.main import COMMANDS, _parser
from clore_mcp.cli.serve import SANDBOX_GAP_SECONDS, SANDBOX_SPEED
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.approvals import QUOTE_SECONDS, YES_SECONDS
from clore_mcp.rental.containers import KNOWN, SHORT_NAMES, Basis
from clore_mcp.rental.context import Patience
from clore_mcp.rental.create.send import _SENDS
from clore_mcp.rental.events import NOTES
from clore_mcp.rental.monitoring.findings import _KINDS
from clore_mcp.sandbox import SANDBOX_KEY, Options
from clore_mcp.sandbox.control import Control
from clore_mcp.sandbox.engine import Engine
from clore_mcp.sandbox.faults import EFFECT
from clore_mcp.server import create_server
from clore_mcp.settings import ACCEPTED, DEFAULT_API_URL, DEFAULT_GAP_SECONDS, TOOLSETS, Approval, Caps, Watchdog
from clore_mcp.store import intents
from tests.conftest import settings_for
from tests.readme import named_commands, prose
from tests.tools.test_schemas import SPENDING

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
HOSTED = "https://github.com/clore-mcp/clore-mcp/blob/main/"  # PyPI shows the README alone
DOCUMENTS = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def hold_against(path: Path, name: str, wanted: str) -> None:
    """The block between the two marks is `wanted`; stored first where that is asked for."""
    block = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
    if os.environ.get("CLORE_STORE_DOCS"):
        path.write_text(block.sub(lambda _: f"{wanted}\n", text(path)), encoding="utf-8")
    found = block.search(text(path))
    assert found is not None, f"{path.name} has no block {name}"
    assert found[0] == f"{wanted}\n"


def effect(tool: Tool) -> str:
    notes = tool.annotations
    assert notes is not None
    if notes.read_only_hint:
        return "reads"
    return "spends" if tool.name in SPENDING else "ends"


def tool_table(tools: Iterable[Tool]) -> str:
    """One row a tool: its name, the first sentence of its description, what it may do."""
    rows = [(f"`{tool.name}`", re.split(r"(?<=\.) ", tool.description or "")[0], effect(tool)) for tool in tools]
    return table(("tool", "", ""), rows)


def option_table() -> str:
    """One row an option of the sandbox: its default, what else it takes where that is a short list, its meaning."""
    hints = get_type_hints(Options, include_extras=True)
    rows = []
    for field in fields(Options):
        kind, meaning = get_args(hints[field.name])
        default = getattr(Options(), field.name)
        words = {"True": "on", "False": "off", "()": "none", str((SANDBOX_KEY,)): "one made-up key"}
        others = [choice for choice in get_args(kind) if get_origin(kind) is Literal and choice != default]
        shown = words.get(str(default), str(default)) + (f" (or {', '.join(others)})" if others else "")
        rows.append((f"`{field.name}`", shown, meaning))
    return table(("option", "default", "meaning"), rows)


def image_table() -> str:
    """One row an image that is known: what it brings, and how sure it is that SSH works in it."""
    names = {known.image: f"`{name}`" for name, known in SHORT_NAMES.items()}
    rows = [
        (
            names.get(known.image, ""),
            f"`{known.image}`",
            known.brings,
            known.pytorch,
            known.cuda,
            "port 8888" if known.jupyter else "not known",
            "its own" if known.own_sshd else "Clore's entrypoint",
            known.basis,
        )
        for known in KNOWN
    ]
    return table(("short name", "image", "brings", "PyTorch", "CUDA", "Jupyter", "sshd", "SSH on Clore"), rows)


def fault_table() -> str:
    """One row a fault."""
    return table(
        ("kind", "the request is"), ((f"`{kind}`", "done" if done else "not done") for kind, done in EFFECT.items())
    )


@pytest.fixture
async def client(tmp_path: Path) -> Client:
    return Client(create_server(settings_for({}, tmp_path)))


@pytest.mark.anyio
async def test_the_readme_has_the_servers_tools(client: Client) -> None:
    async with client:
        tools = (await client.list_tools()).tools
    hold_against(README, "tools", tool_table(tools))


@pytest.mark.anyio
async def test_the_readme_names_every_prompt_and_resource_and_no_other(client: Client) -> None:
    async with client:
        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        uris = {str(one.uri) for one in (await client.list_resources()).resources}
        uris |= {one.uri_template for one in (await client.list_resource_templates()).resource_templates}
    told = text(README)
    passage = told[told.index("Prompts, to pick") : told.index("## What you have in a terminal")]
    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", passage)) == prompts
    assert set(re.findall(r"`(clore://[^`]+)`", passage)) == uris


def test_the_sandbox_page_has_every_option_and_fault() -> None:
    hold_against(ROOT / "docs" / "sandbox.md", "options", option_table())
    hold_against(ROOT / "docs" / "sandbox.md", "faults", fault_table())


def test_the_page_of_images_has_the_table_of_the_code() -> None:
    hold_against(ROOT / "docs" / "images.md", "images", image_table())
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    assert all(f"- `{basis}`: " in page for basis in get_args(Basis))


def test_the_sandbox_page_has_every_request_of_the_control_path() -> None:
    page = text(ROOT / "docs" / "sandbox.md")
    told, methods = set(), []
    for method, where in re.findall(
        r"`(GET|POST|DELETE)(?: ([a-z]+(?:/ID)?)[^`]*)?`", page.split("## The control path")[1]
    ):
        methods.append(method)
        if where:
            told |= {(one, f"/{where.replace('ID', '{id:int}')}") for one in methods}
            methods = []
    routes = Control(Engine(Options(servers=1))).routes()
    assert told == {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}


def test_the_sandbox_of_a_server_is_as_fast_as_its_page_says() -> None:
    page = " ".join(text(ROOT / "docs" / "sandbox.md").split())
    assert (SANDBOX_SPEED, 1 / SANDBOX_GAP_SECONDS) == (10, 20)
    assert "ten times faster than real time, twenty requests a second" in page
    assert f"{Options().servers:,} made-up servers" in page


def test_the_watchdog_page_has_every_event_that_is_found_and_no_other() -> None:
    section = text(ROOT / "docs" / "watchdog.md").split("\n## Events\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(_KINDS)
    (others,) = re.findall(r"^Other events report what was done: (.*?) and so on", section, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", others)) <= NOTES.keys() - _KINDS.keys()
    (event,) = re.findall(r"^```json\n(.*?)\n```$", section, re.MULTILINE | re.DOTALL)
    shown = json.loads(event)
    assert shown["note"] == NOTES[shown["what"]].format_map(shown["figures"])


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("README.md", r"^\| `CLORE_MAX_{name}` \| (\d+) \|"),
        ("docs/settings.md", r"^\| `CLORE_MAX_{name}` \| (\d+) \|"),
        ("docs/safety.md", r"^\| {words} \| (\d+) \|"),
        ("server.json", r'"name": "CLORE_MAX_{name}",[^}}]*"default": "(\d+)"'),
        ("release/mcpb/manifest.json", r'"max_{cap}": {{[^}}]*"default": (\d+),'),
    ],
)
def test_each_file_states_the_real_caps(path: str, pattern: str) -> None:
    told = text(ROOT / path)
    for field in fields(Caps):
        words = field.name.replace("_", " ").replace("usd", "USD")
        (found,) = re.finditer(pattern.format(name=field.name.upper(), cap=field.name, words=words), told, re.MULTILINE)
        told = told[: found.start(1)] + str(getattr(Caps(), field.name)) + told[found.end(1) :]
    if os.environ.get("CLORE_STORE_DOCS"):
        (ROOT / path).write_text(told, encoding="utf-8")
    assert text(ROOT / path) == told


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"|^\[[^\]]+\]: (\S+)", text(path), re.MULTILINE):
        where, _, part = "".join(target).partition("#")
        if where.startswith(HOSTED):
            page = ROOT / where.removeprefix(HOSTED)
        elif where.startswith("https://"):
            continue
        else:
            page = path.parent / where if where else path
        assert page.exists(), target
        assert not part or part in anchors(page), target


def test_the_readme_has_no_link_and_no_label_that_leads_nowhere_on_the_packages_page() -> None:
    told = text(README)
    assert not re.findall(r"\]\((?!https://|#)[^)]+\)|src=\"(?!https://)", told)
    labels = {name.lower() for name in re.findall(r"^\[(.+)\]: ", told, re.MULTILINE)}
    used = {(label or name).lower() for name, label in re.findall(r"\[([^\]]+)\]\[([^\]]*)\]", prose(told))}
    assert used == labels


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings in small letters, without signs, with hyphens for blanks."""
    heads = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_commands_exist(path: Path) -> None:
    told = re.sub(r"^```python.*?^```", "", text(path), flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"clore-mcp ([a-z]+)", " ".join(re.findall(r"`[^`]+`|```.*?```", told, re.DOTALL))))
    assert named <= {command.name for command in COMMANDS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_commands_are_taken_as_they_stand(path: Path) -> None:
    """By the real parser; ids are put in where only a name is told."""
    needs = {"approve": "ID", "decline": "ID", "connect": "4242", "cancel": "4242", "settle": "INTENT"}
    for words in named_commands(text(path)):
        whole = [*words, *([needs[words[0]]] if words[0] in needs and len(words) == 1 else [])]
        if whole[0] == "settle" and len(whole) == 2:
            whole.append("--none")  # one of two that it wants
        try:
            assert _parser(whole).parse_args(whole)
        except SystemExit as refused:
            raise AssertionError(f"{path.name}: clore-mcp {' '.join(words)}") from refused


def test_the_readme_names_every_command() -> None:
    assert all(f"`clore-mcp {command.name}" in text(README) for command in COMMANDS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_variables_exist(path: Path) -> None:
    named = set(re.findall(r"\bCLORE_[A-Z_]+[A-Z]\b", text(path))) - {"CLORE_MAX"}
    if path.name == "contributing.md":
        named -= {
            name for code in (ROOT / "tests").rglob("*.py") for name in re.findall(r'"(CLORE_STORE_\w+)"', text(code))
        }
    assert named <= ACCEPTED.keys()


def settings_rows() -> Iterator[tuple[str, str]]:
    for line in text(ROOT / "docs" / "settings.md").splitlines():
        if found := re.match(r"\| `(CLORE_[A-Z_]+)` \| ([^|]+) \|", line):
            yield found[1], found[2].strip("` ")


def test_each_setting_has_its_row() -> None:
    assert [name for name, _ in settings_rows()] == list(ACCEPTED)


def test_the_settings_page_has_the_real_defaults(tmp_path: Path) -> None:
    told = dict(settings_rows())
    real = settings_for({}, tmp_path)
    assert told["CLORE_API_URL"] == DEFAULT_API_URL == real.api_url
    assert float(told["CLORE_REQUEST_GAP_SECONDS"]) == DEFAULT_GAP_SECONDS
    assert told["CLORE_APPROVAL"] == Approval.ASK == real.approval
    assert told["CLORE_WATCHDOG"] == Watchdog.AUTO == real.watchdog
    assert (told["CLORE_READ_ONLY"], told["CLORE_TOOLSETS"]) == ("off", "all")
    assert f"Comma-separated: {', '.join(f'`{one}`' for one in TOOLSETS)}." in text(ROOT / "docs" / "settings.md")
    assert (real.read_only, real.toolsets, real.limits) == (False, frozenset(TOOLSETS), Caps())


def test_sections_that_the_code_refers_to_exist() -> None:
    heads = set(re.findall(r"^#+ ([0-9.]+?)\.? ", text(ROOT / "docs" / "clore-api.md"), re.MULTILINE))
    for path in (ROOT / "clore_mcp").rglob("*.py"):
        code = text(path)
        for number in re.findall(r"clore-api\.md,? (?:section )?([0-9.]*[0-9])|\(section ([0-9.]*[0-9])\)", code):
            assert next(filter(None, number)) in heads, f"{path.name}: section {number}"


def test_how_it_works_has_the_states_and_the_times_of_the_program() -> None:
    page = text(ROOT / "docs" / "how-it-works.md")
    chain = (intents.__doc__ or "").split("\n\n")[1]
    states = set(re.findall(r"\b[a-z]{6,}\b", re.sub(r"\(.*?\)", "", chain)))
    assert states == {"reserved", "sending", "adopted", "failed", "refused", "uncertain", "abandoned"}
    assert all(re.search(rf"\b{state}\b", page) for state in states)
    times = Patience()
    for said, seconds in (
        (r"After (\d+) seconds the call answers `in_progress`", times.answer),
        (r"for up to (\d+) seconds; never send again", times.look),
        (r"`abandoned` after (\d+) seconds", times.orphan),
        (r"refused unread, at most (\d+) times", _SENDS),
        (r"data at most (\d+) seconds old", EXECUTION_AGE),
        (r"frozen for (\d+) minutes", QUOTE_SECONDS / 60),
        (r"again within (\d+) minutes", YES_SECONDS / 60),
    ):
        found = re.search(said, page)
        assert found is not None and float(found[1]) == seconds, said
    assert times.window == 60 and "and a minute are over" in page


def test_contributing_has_every_room_and_names_what_exists() -> None:
    page = text(ROOT / "docs" / "contributing.md")
    rooms = {path.parent.name for path in (ROOT / "clore_mcp").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"\(\.\./clore_mcp/(\w+)\)", page))
    for named in re.findall(r"(?<![\w/])((?:tests|benchmarks)(?:/[\w.]+)*)", page):
        assert (ROOT / named).exists(), named
    for module in re.findall(r"python -m ([\w.]+)", page):
        assert module in ("venv", "pytest") or find_spec(module) is not None, module
    ci = text(ROOT / ".ci" / "run")
    (check,) = re.findall(r"^mypy .*$", page, re.MULTILINE)
    assert all(command in ci for command in check.split(" && "))


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(rf"^\[.+\]: {HOSTED}docs/(.+)$", text(README), re.MULTILINE))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= linked
