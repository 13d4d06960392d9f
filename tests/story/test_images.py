"""Which image: a short name, none at all, a foreign one; asked about, rented and reached over stdio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from clore_mcp.rental.containers import SHORT_NAMES
from clore_mcp.sandbox import Running
from tests.story.people import Person, assistant
from tests.story.records import creates, nothing_was_spent, orders, rows

pytestmark = pytest.mark.anyio
JUPYTER = SHORT_NAMES["jupyter"].image
WATCH = {"gpu": "4090", "hours": 1, "expires_hours": 1}


def change(market: Running, path: str, **what: Any) -> None:
    with httpx2.Client(trust_env=False, verify=False) as http:
        http.post(f"{market.control_url}{path}", json=what, timeout=60).raise_for_status()


def cheap(market: Running, *cudas: str) -> list[int]:
    """Free servers, one for each CUDA that its host is to list."""
    listed = httpx2.get(f"{market.url}/marketplace", verify=False).raise_for_status().json()["servers"]
    fit = [row for row in listed if not row["rented"] and row["mrl"] > 24 and "USD-Blockchain" in row["allowed_coins"]]
    fit.sort(key=lambda row: float(row["price"]["on_demand"]["USD-Blockchain"]))
    for row, cuda in zip(fit, cudas, strict=False):
        change(market, f"/servers/{row['id']}", cuda_version=cuda)
    return [int(row["id"]) for row in fit[: len(cudas)]]


async def test_without_an_image_jupyter_is_rented_and_its_address_and_the_tokens_place_are_told(
    market: Running, tmp_path: Path, mode: str
) -> None:
    person = Person(True, True)
    async with assistant(market, tmp_path, mode, person) as us:
        [server_id] = cheap(market, "12.4")
        wish = {"server_id": server_id, "hours": 1, "jupyter": True}
        quote = await us.call("quote_order", **wish)
        assert quote["allowed"] and quote["image"] == JUPYTER and "image_notes" not in quote
        made = await us.call("create_order", **wish)
        assert made["status"] == "created"
        assert f'Runs: image "{JUPYTER}", ports 22/tcp, 8888/http, Jupyter' in person.asked[0]
        [order] = orders(market)
        assert order["image"] == JUPYTER and order["jupyter"], "it runs, and behind the http port"
        connect = f"connect {made['order_id']}` in their own terminal"
        assert connect in made["next"] and ("jupyter_url" in made or "http_url" in made["next"])

        ready = await us.call("wait_for_order", order_id=made["order_id"], timeout_seconds=40)
        again = await us.call("create_order", **wish)
        assert again["repeated"] and again["jupyter_url"] == ready["http_url"]
        assert connect in again["next"] and len(person.asked) == 1
        [secret] = rows(tmp_path, "secrets")
        told = str([quote, made, ready, again, await us.call("list_orders"), person.asked, us.progress])
        assert secret["name"] == "jupyter_token" and secret["value"] not in told
        await us.call("cancel_order", order_id=made["order_id"])


async def test_an_order_without_jupyter_says_nothing_of_it(market: Running, tmp_path: Path, mode: str) -> None:
    async with assistant(market, tmp_path, mode, Person(True, True)) as us:
        [server_id] = cheap(market, "12.4")
        made = await us.call("create_order", server_id=server_id, hours=1)
        assert made["status"] == "created" and "upyter" not in made["next"] and "jupyter_url" not in made
        await us.call("cancel_order", order_id=made["order_id"])


@pytest.mark.parametrize("name", SHORT_NAMES)
async def test_a_short_name_is_rented_by_its_docker_name_and_reached_over_ssh(
    market: Running, tmp_path: Path, name: str
) -> None:
    known, person = SHORT_NAMES[name], Person(True, True)
    async with assistant(market, tmp_path, "auto", person) as us:
        [server_id] = cheap(market, "13.3")
        wish = {"server_id": server_id, "image": name, "hours": 1}
        quote = await us.call("quote_order", **wish)
        assert quote["image"] == known.image
        assert any("SSH: the image is not known to bring it" in one for one in quote.get("image_notes", [])) is (
            not known.own_sshd
        )
        made = await us.call("create_order", **wish)
        assert made["status"] == "created" and f'Runs: image "{known.image}"' in person.asked[0]
        same = await us.call("create_order", **{**wish, "image": known.image})
        assert same["repeated"] and same["order_id"] == made["order_id"], "the name and the image are one wish"
        [create] = creates(market)
        assert create["body"]["image"] == known.image
        assert bool(create["body"].get("autossh_entrypoint")) is not known.own_sshd
        ready = await us.call("wait_for_order", order_id=made["order_id"], timeout_seconds=40)
        assert ready["ready"] and ready["image"] == known.image
        await us.call("cancel_order", order_id=made["order_id"])


async def test_a_quote_and_the_question_say_what_a_foreign_image_and_an_old_driver_mean(
    market: Running, tmp_path: Path, mode: str
) -> None:
    person = Person(False)
    async with assistant(market, tmp_path, mode, person) as us:
        first, second = cheap(market, "13.0", "12.4")
        wish = {
            "server_id": first,
            "fallback_server_ids": [second],
            "image": "me/trainer:torch2.7-cu128",
            "hours": 1,
            "jupyter": True,
        }
        notes = (await us.call("quote_order", **wish))["image_notes"]
        assert (await us.call("create_order", **wish))["status"] == "declined"
        for part in (
            "Clore adds SSH at the start, which does not work in every image; the order bills either way.",
            "A private image can't be fetched, because no registry login is sent.",
            "Jupyter: it is not known to be in the image",
            f"CUDA: the image needs 12.8, but server {second} has 12.4: it may not start there.",
            "Search with min_cuda 12.8.",
        ):
            assert any(part in note for note in notes), part
            assert part in person.asked[0], part
        assert f"server {first} has" not in person.asked[0]
    nothing_was_spent(market, tmp_path)


async def test_jupyter_and_another_http_port_are_refused_before_anybody_is_asked(
    market: Running, tmp_path: Path
) -> None:
    person = Person()
    async with assistant(market, tmp_path, "auto", person) as us:
        told = await us.call("create_order", server_id=1, hours=1, jupyter=True, ports={"8000": "http"})
        assert told["error"] == "invalid_argument" and "make 8000 tcp, or leave jupyter out" in told["message"]
    assert not person.asked and creates(market) == []


async def test_a_watch_takes_a_short_name_or_none(market: Running, tmp_path: Path, mode: str) -> None:
    person = Person(False, False)
    async with assistant(market, tmp_path, mode, person) as us:
        for image in ({}, {"image": "vLLM"}):
            assert (await us.call("create_watch", max_usd_per_hour=0.01, **WATCH, **image))["status"] == "declined"
    default, vllm = person.asked
    assert f'Runs: image "{JUPYTER}"' in default and "SSH: " not in default
    assert f'Runs: image "{SHORT_NAMES["vllm"].image}"' in vllm and "SSH: the image is not known to bring it" in vllm
