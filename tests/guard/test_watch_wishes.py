"""What a watch may wish for: GPUs that are not listed yet, the filters of a search, to be told instead of renting."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.money import shown_up
from clore_mcp.rental.questions import KeyShown
from clore_mcp.rental.requests import CreateOrder, CreateWatch
from clore_mcp.rental.watches.question import WatchShown, watch_question
from clore_mcp.rental.watches.watch import cancelled
from clore_mcp.tools.market import SearchServers
from clore_mcp.wiring import Services
from tests.guard.calls import call
from tests.guard.invariants import check_invariants
from tests.guard.test_watches import listed, rounds
from tests.guard.watching import stock, watch, watched
from tests.world import World

pytestmark = pytest.mark.anyio

SERVER = 900_001
SHOWN = WatchShown(
    models=("RTX 4090",),
    gpu_counts=(None, None),
    cheapest_usd=None,
    worst_usd=Decimal(1),
    ends="2026-12-01T00:00:00Z",
    who="the watchdog on host",
    key=KeyShown("SHA256:abc", configured=True),
)


async def test_a_known_gpu_that_nobody_lists_is_watched_for_and_rented_when_it_comes(
    world: World, services: Services
) -> None:
    outcome = await call(services, watch(gpu="H200 SXM"), answer=None, can_ask=False)
    (quote,) = world.rows("SELECT question FROM quotes")
    assert outcome.status == "approval_required" and "of H200 SXM for 2 hours" in quote["question"]
    await watched(services, watch(gpu="H200 SXM"))
    await rounds(services, world)
    assert not world.active()
    stock(world, SERVER, 0.15, gpu="NVIDIA H200 NVL")
    await rounds(services, world)
    assert not world.active(), "another card of that number"
    stock(world, SERVER + 1, 0.18, gpu="NVIDIA H200")
    await rounds(services, world)
    assert [order["server_id"] for order in world.active()] == [SERVER + 1]
    check_invariants(world)


async def test_a_watch_that_tells_asks_nothing_rents_nothing_and_tells_once(world: World, services: Services) -> None:
    stock(world, SERVER, 0.30)
    outcome = await call(services, watch(0.30, notify=True), answer=None, can_ask=False)
    assert outcome.status == "waiting" and "rents nothing" in outcome.envelope, outcome
    await rounds(services, world, 3)
    (one,) = await listed(services)
    assert one.status == "fired" and one.order_ids == ()
    (event,) = world.rows("SELECT server_id, data FROM ledger WHERE step = 'watch_met'")
    assert event["server_id"] == SERVER and "0.3" in event["data"]
    assert not world.sent() and not world.active()
    check_invariants(world)


async def test_a_watch_that_tells_is_taken_back_like_any_other(world: World, services: Services) -> None:
    outcome = await call(services, watch(0.30, notify=True), answer=None, can_ask=False)
    gone = await cancelled(services.context, outcome.watch_id, by="tester")
    stock(world, SERVER, 0.10)
    await rounds(services, world)
    assert gone.status == "cancelled" and "watch_met" not in world.steps()


NO_GPU = {
    "any": "names no GPU model",
    "a GPU": "names no GPU model",
    "显卡": "names no GPU model",
    " ": "names no GPU model",
    "rtx 9990": "no GPU that is known",
    "nvidia": "models, but a watch takes up to 8",
    "RTX": "models, but a watch takes up to 8",
    "24GB": "models, but a watch takes up to 8",
    "RTX 6000": "may be Quadro RTX 6000",
    "2x 4090 or 4x 3090": "different numbers",
}


async def test_what_names_no_gpu_or_too_many_is_refused_before_a_question(world: World, services: Services) -> None:
    for gpu, said in NO_GPU.items():
        with pytest.raises(ArgumentInvalid, match=said) as refused:
            await call(services, watch(gpu=gpu))
        assert refused.value.hint, gpu
    assert not world.rows("SELECT * FROM quotes") and not world.rows("SELECT * FROM watches")


async def test_a_number_named_with_the_gpu_is_in_the_question_and_kept(world: World, services: Services) -> None:
    stock(world, SERVER, 0.10)  # one GPU
    await watched(services, watch(gpu="2x 4090"))
    (quote,) = world.rows("SELECT question FROM quotes")
    assert "Any server that fits: 2 GPUs, in " in quote["question"]
    await rounds(services, world)
    assert not world.active()


FILTERS: tuple[dict[str, Any], ...] = (
    {"min_ram_gb": 90_000},
    {"min_disk_gb": 90_000},
    {"min_cpu_threads": 9_000},
    {"min_download_mbps": 900_000},
    {"min_upload_mbps": 900_000},
    {"exclude_countries": ["IS"]},
    {"min_cuda": "99.1"},
)


async def test_each_filter_keeps_a_server_from_being_rented(world: World, services: Services) -> None:
    stock(world, SERVER, 0.10)
    for filters in FILTERS:
        await watched(services, watch(notify=True, **filters))
    await rounds(services, world)
    assert "watch_met" not in world.steps()


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"min_ram_gb": 64}, "64 GB RAM or more"),
        ({"min_disk_gb": 200.5}, "200.5 GB disk or more"),
        ({"min_cpu_threads": 16}, "16 CPU threads or more"),
        ({"min_download_mbps": 300}, "300 Mbps down or more"),
        ({"min_upload_mbps": 30}, "30 Mbps up or more"),
        ({"min_vram_gb": 24}, "24 GB or more on each"),
        ({"min_reliability": 0.9}, "reliability 0.9 or more"),
        ({"min_rating": 4}, "rating 4 or more"),
        ({"min_cuda": "12.4"}, 'CUDA "12.4" or newer, in'),
        ({"image": "cuda"}, 'CUDA "12.8" or newer, which the image needs, in'),
        ({"image": "cuda", "min_cuda": "12.4"}, 'CUDA "12.8" or newer, which the image needs, in'),
        ({"image": "cuda", "min_cuda": "12.9"}, 'CUDA "12.9" or newer, in'),
        ({"currency": "USD"}, "paid in USD, "),
        ({"currency": "CLORE-Blockchain"}, "paid in CLORE, "),
        ({"countries": ["DE", "FR"]}, 'in "DE", "FR"'),
        ({"exclude_countries": ["RU"]}, 'not in "RU"'),
        ({"jupyter": True}, ", Jupyter"),
    ],
)
def test_every_filter_is_in_the_question(filters: dict[str, Any], words: str) -> None:
    assert words in watch_question("q1", watch(**filters), SHOWN)


def test_a_watch_has_every_filter_of_a_search_and_every_option_of_a_create_that_applies() -> None:
    searched, created = set(SearchServers.model_fields), set(CreateOrder.model_fields)
    taken = set(CreateWatch.model_fields)
    # A watch rents on demand, cancels at the end, and picks servers, fallbacks and their order by itself: it has one
    # server at a time, which no other replaces.
    of_a_page = {"sort_by", "limit", "cursor"}
    assert searched - taken == {"order_type", "include_rented", "min_rental_hours"} | of_a_page
    of_fallbacks = {"server_id", "fallback_server_ids", "replaces_order_id"}
    assert created - taken == {"order_type", "bid_usd_per_hour", "on_end"} | of_fallbacks


@pytest.mark.parametrize("filters", [{"image": "cuda"}, {"image": "cuda", "min_cuda": "12.0"}], ids=["alone", "with"])
async def test_a_watch_rents_no_host_whose_driver_is_too_old_for_its_image(
    world: World, services: Services, filters: dict[str, Any]
) -> None:
    stock(world, SERVER, 0.10, cuda="12.4")
    await watched(services, watch(**filters))
    await rounds(services, world)
    assert not world.active(), "an order on it would bill, and never start"
    (waits,) = await listed(services)
    assert waits.status == "waiting" and waits.best_seen_usd_per_hour is None
    stock(world, SERVER + 1, 0.20, cuda="12.8")
    await rounds(services, world)
    assert [order["server_id"] for order in world.active()] == [SERVER + 1]
    check_invariants(world)


async def test_a_watch_pays_in_the_coin_that_was_named_and_in_no_other(world: World, services: Services) -> None:
    stock(world, SERVER, 0.10)  # takes USD alone
    await watched(services, watch(currency="CLORE"))
    await rounds(services, world)
    assert not world.active()
    await watched(services, watch(currency="USD"))
    await rounds(services, world)
    (order,) = world.active()
    assert (order["server_id"], order["currency"]) == (SERVER, "USD-Blockchain")
    check_invariants(world)


def test_every_argument_of_a_watch_is_in_its_question_or_said_to_be_anything() -> None:
    plainly = watch_question("q1", watch(countries=None), SHOWN)
    assert "any number of GPUs, in any country, any reliability" in plainly
    told = {"gpu", "max_usd_per_hour", "hours", "image", "expires_hours", "max_orders", "ports", "env", "command"}
    shown_elsewhere = told | {"ssh_public_key", "jupyter", "notify", "min_gpus", "max_gpus"}
    filters = CreateWatch.model_fields.keys() - shown_elsewhere
    assert filters == {
        "min_vram_gb", "min_ram_gb", "min_disk_gb", "min_cpu_threads", "min_download_mbps", "min_upload_mbps",
        "countries", "exclude_countries", "min_reliability", "min_rating", "min_cuda", "currency",
    }, "a new filter needs its words in the question and a case above"  # fmt: skip


async def test_a_key_of_the_persons_choice_is_shown_and_let_in(world: World, services: Services) -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIbqLgnWbXWc3AZqTNs5YRG1c7pNhPEDeyQIg0gSVdNA"
    stock(world, SERVER, 0.10)
    await watched(services, watch(ssh_public_key=line, jupyter=True))
    (quote,) = world.rows("SELECT question FROM quotes")
    assert "NOT your configured key" in quote["question"] and "Jupyter" in quote["question"]
    await rounds(services, world)
    (sent,) = [one["body"] for one in world.sent() if one["effect"]]
    assert sent["ssh_key"] == line and sent["ports"] == {"22": "tcp", "8888": "http"} and sent["jupyter_token"]
    check_invariants(world)


@given(st.decimals("0.0001", "9000", places=9))
def test_a_watch_at_the_price_that_is_shown_is_met_by_it(usd: Decimal) -> None:
    assert usd <= watch(shown_up(usd)).exact_usd_per_hour
