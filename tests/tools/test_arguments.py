"""Every optional argument of every tool, written in each way that clients write arguments: what is made of it.

A cell of the table is NOT_GIVEN, REFUSED (a named error with its cure) or the value that the tool receives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, ValidationError

from clore_mcp.sandbox import Running
from clore_mcp.server import chosen_tools, create_server
from clore_mcp.tools.kit import CloreTool, failure_result
from tests.conftest import environment, settings_for
from tests.story.people import IMAGE

NOT_GIVEN: Final = "<not given>"
REFUSED: Final = "<refused>"
JSON_TEXT: Final = '{"a":1}'
LIST_TEXT: Final = "[1,2]"
# how a client writes it: None, "", " ", "null", 0, 1, "1", True, [], {}, text that looks like JSON
GIVEN: Final[tuple[Any, ...]] = (None, "", " ", "null", 0, 1, "1", True, [], {}, JSON_TEXT, LIST_TEXT, ["x"], {"a": []})
NO: Final = NOT_GIVEN
ODD: Final = REFUSED
# one row a kind of argument, one column a way of writing
KINDS: Final[Mapping[str, tuple[Any, ...]]] = {
    "whole":  (NO, NO, NO, NO, ODD, 1, 1, ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "number": (NO, NO, NO, NO, 0, 1, 1, ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "above":  (NO, NO, NO, NO, ODD, 1, 1, ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "needed": (ODD, ODD, ODD, ODD, ODD, 1, 1, ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "chosen": (ODD, ODD, ODD, ODD, ODD, True, True, True, ODD, ODD, ODD, ODD, ODD, ODD),
    "flag":   (NO, NO, NO, NO, NO, True, True, True, ODD, ODD, ODD, ODD, ODD, ODD),
    "text":   (NO, NO, NO, "null", "0", "1", "1", ODD, ODD, ODD, JSON_TEXT, LIST_TEXT, ODD, ODD),
    "word":   (NO, NO, NO, NO, ODD, ODD, ODD, ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "ids":    (NO, NO, NO, NO, ODD, [1], [1], ODD, NO, NO, ODD, [1, 2], ODD, ODD),
    "places": (NO, NO, NO, NO, ODD, ODD, ODD, ODD, NO, NO, ODD, ODD, ODD, ODD),
    "map":    (NO, NO, NO, NO, ODD, ODD, ODD, ODD, NO, NO, {"a": "1"}, ODD, ODD, ODD),
    "ports":  (NO, NO, NO, NO, ODD, ODD, ODD, ODD, NO, NO, ODD, ODD, ODD, ODD),
    "key":    (NO, NO, NO, ODD, ODD, ODD, ODD, ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "cuda":   (NO, NO, NO, ODD, "0", "1", "1", ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "page":   (NO, NO, NO, ODD, "0", "1", "1", ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "image":  (NO, NO, NO, "null", "0", "1", "1", ODD, ODD, ODD, ODD, ODD, ODD, ODD),
    "remark": (NO, NO, NO, "null", "0", "1", "1", "true", NO, NO, JSON_TEXT, LIST_TEXT, '["x"]', '{"a": []}'),
}  # fmt: skip
# an argument's kind where its name does not say it all
NAMED: Final[Mapping[str, str]] = {
    "gpu": "text", "command": "text", "ssh_public_key": "key", "min_cuda": "cuda", "issue": "remark", "image": "image",
    "countries": "places", "exclude_countries": "places", "fallback_server_ids": "ids", "env": "map", "ports": "ports",
    "max_usd_per_hour": "above", "bid_usd_per_hour": "above", "timeout_seconds": "above",
    "max_usd_per_gpu_hour": "above",
    "search_servers cursor": "text", "list_orders cursor": "page", "set_spot_price to_win": "chosen",
    "set_spot_price bid_usd_per_hour": "needed", "set_spot_price max_usd_per_hour": "needed",
}  # fmt: skip
BY_TYPE: Final = {"integer": "whole", "number": "number", "boolean": "flag"}
REQUIRED: Final[Mapping[str, dict[str, Any]]] = {
    "create_order": {"server_id": 9, "hours": 1},
    "quote_order": {"server_id": 9, "hours": 1},
    "wait_for_order": {"order_id": 1},
    "cancel_order": {"order_id": 1},
    "extend_order": {"order_id": 1, "hours": 1},
    "set_spot_price": {"order_id": 1, "bid_usd_per_hour": 1},
    "create_watch": {"gpu": "no such gpu", "max_usd_per_hour": 1, "hours": 1, "expires_hours": 1},
    "get_server": {"server_id": 1},
    "price_history": {"gpu": "4090"},
    "cancel_watch": {"watch_id": "w1"},
}
# what must stand beside an argument
BESIDE: Final[Mapping[str, dict[str, Any]]] = {
    "bid_usd_per_hour": {"order_type": "spot"},
    "jupyter": {"ports": {"8888": "http"}},
    "set_spot_price bid_usd_per_hour": {},
    "set_spot_price to_win": {"bid_usd_per_hour": None, "max_usd_per_hour": 1},
    "set_spot_price max_usd_per_hour": {"bid_usd_per_hour": None, "to_win": True},
}


def tools(folder: Path) -> list[CloreTool]:
    return [tool for tool in chosen_tools(settings_for({}, folder)) if isinstance(tool, CloreTool)]


def optional(tool: CloreTool) -> Iterator[tuple[str, str]]:
    """The optional arguments of a tool, each with its kind."""
    for name, schema in tool.parameters["properties"].items():
        if name not in tool.parameters.get("required", ()):
            kind = NAMED.get(f"{tool.name} {name}") or NAMED.get(name) or BY_TYPE.get(schema["type"])
            yield name, kind or ("word" if "enum" in schema else "text")


def around(tool: CloreTool, name: str) -> dict[str, Any]:
    """What is given to the tool beside that argument."""
    return REQUIRED.get(tool.name, {}) | BESIDE.get(f"{tool.name} {name}", BESIDE.get(name, {}))


def received(tool: CloreTool, name: str, **arguments: Any) -> Any:
    """What the tool receives as that argument, in the forms of JSON. Raises ValidationError."""
    read = tool.fn_metadata.validate_arguments({**around(tool, name), **arguments})
    if "request" in read:
        read = read["request"].model_dump(mode="json")
    return read[name]


def message(tool: CloreTool, /, **arguments: Any) -> str:
    """What a model reads where these arguments are refused."""
    with pytest.raises(ValidationError) as caught:
        tool.fn_metadata.validate_arguments(arguments)
    error = ToolError("refused")
    error.__cause__ = caught.value
    told = json.loads(failure_result(tool.name, error, tool.parameters["properties"]).content[0].text)  # type: ignore[union-attr]
    assert told["error"] == "invalid_argument" and told["hint"]
    return str(told["message"])


def by_name(folder: Path, name: str) -> CloreTool:
    return next(tool for tool in tools(folder) if tool.name == name)


def test_each_cell_of_the_table_has_its_outcome(tmp_path: Path) -> None:
    seen, wrong = 0, []
    for tool in tools(tmp_path):
        for name, kind in optional(tool):
            absent = received(tool, name) if NOT_GIVEN in KINDS[kind] else None
            for given, expected in zip(GIVEN, KINDS[kind], strict=True):
                seen += 1
                try:
                    got = received(tool, name, **{name: given})
                except ValidationError:
                    told = message(tool, **{**around(tool, name), name: given})
                    got = REFUSED if name in told else told
                wanted = absent if expected == NOT_GIVEN else expected
                if got != wanted or isinstance(got, bool) is not isinstance(wanted, bool):
                    wrong.append((tool.name, name, given, expected, got))
    assert not wrong, "\n".join(map(repr, wrong))
    assert seen > 600, "the table has every optional argument"


@pytest.mark.anyio
async def test_no_cell_of_the_table_is_a_defect_of_ours(market: Running, tmp_path: Path) -> None:
    """Each as a real call: about a server and an order that do not exist, so that nothing comes of it."""
    server = create_server(settings_for(environment(market, tmp_path), tmp_path))
    async with Client(server, mode="legacy") as client:
        for tool in tools(tmp_path):
            for name, kind in optional(tool):
                for given, expected in zip(GIVEN, KINDS[kind], strict=True):
                    beside = {"gpu": "4090"} if name == "include_rented" else {}
                    arguments = {**around(tool, name), **beside, name: given}
                    result = await client.call_tool(tool.name, arguments)
                    text = result.content[0].text  # type: ignore[union-attr]
                    assert "bug in clore-mcp" not in text, (tool.name, arguments, text)
                    if expected == REFUSED:
                        assert result.is_error and name in json.loads(text)["message"], (tool.name, arguments, text)


@pytest.mark.parametrize(
    ("tool", "name", "given", "value"),
    [
        *(("create_order", "order_type", word, "on-demand") for word in
          ("on-demand", "on_demand", "On-Demand", "ondemand", "ON DEMAND", "onDemand")),
        *(("search_servers", "order_type", word, "spot") for word in ("spot", "SPOT", " Spot ")),
        *(("create_order", "currency", word, "BTC") for word in ("btc", "BTC", "bitcoin", "Bitcoin")),
        *(("search_servers", "currency", word, "CLORE") for word in ("clore", "CLORE-Blockchain", "clore_blockchain")),
        *(("quote_order", "currency", word, "USD") for word in ("usd", "USD-Blockchain", "usd blockchain")),
        ("search_servers", "sort_by", "Price-per-GPU", "price_per_gpu"),
        ("create_order", "on_end", "NOTIFY", "notify"),
        *(("search_servers", "countries", given, value) for given, value in (
            ("DE,FR", ["DE", "FR"]), ('["DE","FR"]', ["DE", "FR"]), ("DEU", ["DEU"]), ("Germany; europe",
            ["Germany", "europe"]), (["EU", "", None], ["EU"]), ("United States", ["United States"]))),
        *(("create_order", "fallback_server_ids", given, value) for given, value in (
            ("[12,13]", [12, 13]), ("12, 13", [12, 13]), ("12,13", [12, 13]), (12, [12]),
            (["12", 13.0, None], [12, 13]),
            ("[]", None), ("#12", [12]))),
        *(("create_order", "env", given, value) for given, value in (
            ({"A": 1, "B": 0.5, "C": True, "D": ""}, {"A": "1", "B": "0.5", "C": "true", "D": ""}),
            ('{"A":1.10,"B":"[1]"}', {"A": "1.10", "B": "[1]"}), ({"A": '{"x": 1}'}, {"A": '{"x": 1}'}))),
        ("create_order", "ports", '{"8888":"HTTP"}', {"8888": "http"}),
        *(("create_order", "command", given, given) for given in
          ('["python","x.py"]', '{"a": 1}', "null", "true", "12", '"quoted"', "1e400", "[" * 100_0)),
        *(("create_order", "image", given, "cloreai/torch:2.0.1") for given in ("pytorch", " PyTorch\n")),
        ("create_order", "bid_usd_per_hour", "0.5", 0.5),
        ("create_order", "hours", "2", 2.0),
        ("create_order", "server_id", "#7", 7),
        ("create_order", "jupyter", "true", True),
        ("create_order", "jupyter", "no", False),
        ("search_servers", "gpu", 4090, "4090"),
        ("search_servers", "gpu", 4090.0, "4090"),
        ("search_servers", "min_cuda", 12.4, "12.4"),
        ("search_servers", "limit", 5.0, 5),
        ("extend_order", "hours", "1.5", 1.5),
        ("extend_order", "order_id", "#9", 9),
    ],
)  # fmt: skip
def test_what_clients_write_is_read_as_it_is_meant(
    tmp_path: Path, tool: str, name: str, given: Any, value: Any
) -> None:
    assert received(by_name(tmp_path, tool), name, **{name: given}) == value


@pytest.mark.parametrize(
    ("tool", "name", "given"),
    [
        ("create_order", "fallback_server_ids", "1,234"),  # one number, or two servers
        ("create_order", "fallback_server_ids", "[1,2"),
        ("create_order", "hours", True),
        ("create_order", "hours", "NaN"),
        ("create_order", "hours", "2h"),
        ("create_order", "server_id", True),
        ("create_order", "server_id", "1,234"),
        ("create_order", "server_id", 1.5),
        ("create_order", "currency", "dogecoin"),
        ("create_order", "env", {"A": None}),
        ("create_order", "env", {"A": float("inf")}),
        ("create_order", "env", "A=1"),
        ("search_servers", "min_ram_gb", "inf"),
        ("search_servers", "min_vram_gb", float("nan")),
        ("search_servers", "gpu", 10**60),
        ("set_spot_price", "bid_usd_per_hour", True),
        ("create_watch", "max_orders", True),
    ],
)
def test_what_could_mean_two_things_is_refused_by_name(tmp_path: Path, tool: str, name: str, given: Any) -> None:
    made = by_name(tmp_path, tool)
    assert name in message(made, **{**REQUIRED.get(tool, {}), name: given})


@pytest.mark.parametrize("tool", sorted(REQUIRED))
def test_what_clients_add_is_dropped_and_any_other_name_is_an_error(tmp_path: Path, tool: str) -> None:
    made = by_name(tmp_path, tool)
    added = {"toolCallId": "c1", "sessionId": "s", "action": "sendMessage", "chatInput": "hi", "tool": tool,
             "_meta": {}, "random_string": "dummy"}  # fmt: skip
    assert dump(made, **REQUIRED[tool]) == dump(made, **REQUIRED[tool], **added)
    for name in ("confirm", "approve", "toolcallid", "max_pirce"):
        if tool == "cancel_order":
            assert dump(made, **REQUIRED[tool], **{name: True}) == dump(made, **REQUIRED[tool])
        else:
            assert f"{name}: no such argument" in message(made, **REQUIRED[tool], **{name: True})


def dump(tool: CloreTool, /, **arguments: Any) -> dict[str, Any]:
    read = tool.fn_metadata.validate_arguments(arguments)
    return {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in read.items()}


def test_all_problems_of_a_call_are_named_at_once(tmp_path: Path) -> None:
    told = message(
        by_name(tmp_path, "create_order"), server_id="x", hours=None, image="Not An Image", order_type="cheap",
        bid_usd_per_hour=0, currency="doge", fallback_server_ids=[0], ports={"0": "tcp"}, env={"A": "&"},
        ssh_public_key="no key", command="\u202e", jupyter="perhaps", on_end="stop", confirm=True, servr_id=3,
    )  # fmt: skip
    for name in ("server_id", "hours", "image", "order_type", "bid_usd_per_hour", "currency", "fallback_server_ids",
                 "ports", "env", "ssh_public_key", "command", "jupyter", "on_end", "confirm", "servr_id"):  # fmt: skip
        assert f"{name}:" in told or f"{name}." in told, (name, told)
    assert "did you mean server_id?" in told
    told = message(
        by_name(tmp_path, "create_order"), server_id=1, hours=1, image=IMAGE, bid_usd_per_hour=1,
        fallback_server_ids=[1], ports={"8888": "tcp"}, jupyter=True, confirm=True,
    )  # fmt: skip
    assert all(f"{name}:" in told for name in ("bid_usd_per_hour", "fallback_server_ids", "jupyter", "confirm")), told
    told = message(by_name(tmp_path, "search_servers"), countries="Atlantis, DE, Mordor", exclude_countries="Oz",
                   min_cuda="new", order_type="cheap")  # fmt: skip
    assert all(word in told for word in ("Atlantis", "Mordor", "'Oz'", "min_cuda", "order_type")), told


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("watch_hours", "hours or expires_hours"),
        ("max_usd", "max_gpus or max_usd_per_hour"),
        ("expire_hours", "expires_hours"),
        ("min_gpu", "min_gpus"),
        ("colour", ""),
    ],
)
def test_every_name_that_a_misspelled_one_may_mean_is_suggested(tmp_path: Path, name: str, meant: str) -> None:
    told = message(by_name(tmp_path, "create_watch"), **REQUIRED["create_watch"], **{name: 1})
    assert f"{name}: no such argument{f' (did you mean {meant}?)' if meant else ''}." in told


def test_a_caller_that_invents_thousands_of_names_gets_a_short_answer(tmp_path: Path) -> None:
    told = message(by_name(tmp_path, "get_account"), **{f"x{number}": 1 for number in range(5_000)})
    assert len(told) < 3_000 and "more)" in told
