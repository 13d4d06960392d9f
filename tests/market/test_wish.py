"""GPU names as the world writes them: what a wish means, and that no wish means any."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market.cards import CARDS, nearest
from clore_mcp.market.gpus import canonical
from clore_mcp.market.pricing import Fees
from clore_mcp.market.query import Query
from clore_mcp.market.search import search
from clore_mcp.market.wish import Match, Unknown, resolve
from clore_mcp.sandbox.hardware import GPUS
from tests.market.rows import price, snapshot, wire

PRESENT = (
    "RTX 4090",
    "RTX 3090",
    "RTX 3080",
    "H100 SXM",
    "H100 PCIe",
    "H100 NVL",
    "Radeon RX 7900 XTX",
    "GTX 1060 6GB",
)
FEES = Fees.highest_documented()


def meant(query: str) -> Match:
    found = resolve(query, PRESENT)
    assert isinstance(found, Match), found
    return found


@pytest.mark.parametrize(
    ("query", "models", "count"),
    [
        ("４０９０", {"RTX 4090"}, None),
        ("ＲＴＸ　４０９０", {"RTX 4090"}, None),
        ("٤٠٩٠", {"RTX 4090"}, None),
        ("Н100 NVL", {"H100 NVL"}, None),  # a Cyrillic letter
        ("4090 видеокарта", {"RTX 4090"}, None),
        ("RTX4090:1", {"RTX 4090"}, 1),
        ("H100 NVL:8", {"H100 NVL"}, 8),
        ("{H100 NVL: 4}", {"H100 NVL"}, 4),
        ("8 H100 NVLs", None, None),
        ("8 H100s SXM", {"H100 SXM"}, 8),
        ("8xH100 SXM5", {"H100 SXM"}, 8),
        ("2x4090", {"RTX 4090"}, 2),
        ("2 × RTX 4090", {"RTX 4090"}, 2),
        ("2х4090", {"RTX 4090"}, 2),  # a Cyrillic letter
        ("(2x) 4090", {"RTX 4090"}, 2),
        ("4090 x2", {"RTX 4090"}, 2),
        ("4090 (x2)", {"RTX 4090"}, 2),
        ("4090 2x", {"RTX 4090"}, 2),
        ("RTX4090x2", {"RTX 4090"}, 2),
        ("4090, 2 GPUs", {"RTX 4090"}, 2),
        ("two 4090s", {"RTX 4090"}, 2),
        ("single RTX 4090", {"RTX 4090"}, 1),
        ("dual 3090", {"RTX 3090"}, 2),
        ("4090 or 3090", {"RTX 4090", "RTX 3090"}, None),
        ("4090/3090", {"RTX 4090", "RTX 3090"}, None),
        ("4090, 3090 and 3080", {"RTX 4090", "RTX 3090", "RTX 3080"}, None),
        ("2x 4090 or 3090", {"RTX 4090", "RTX 3090"}, 2),
        ("A100 40GB or 80GB", {"A100 SXM 40GB", "A100 SXM 80GB", "A100 PCIe 40GB", "A100 PCIe 80GB"}, None),
        ("H100 SXM or NVL", {"H100 SXM", "H100 NVL"}, None),
        ("RTX_6000Ada", {"RTX 6000 Ada"}, None),
        ("6000 ada", {"RTX 6000 Ada"}, None),
        ("RTX 6000 48GB", {"RTX 6000 Ada"}, None),
        ("Q RTX 6000", {"Quadro RTX 6000"}, None),
        ("RTX PRO 6000 WS", {"RTX PRO 6000 Blackwell"}, None),
        ("RTX PRO 6000 S", {"RTX PRO 6000 Blackwell Server"}, None),
        ("RTX PRO 6000 Max-Q", {"RTX PRO 6000 Blackwell Max-Q"}, None),
        ("RTX 6000 Blackwell", {"RTX PRO 6000 Blackwell"}, None),
        ("rtxpro6000", {"RTX PRO 6000 Blackwell"}, None),
        ("H100", {"H100 SXM", "H100 PCIe", "H100 NVL"}, None),
        ("H100 SXM5", {"H100 SXM"}, None),
        ("H100 80GB HBM3", {"H100 SXM"}, None),
        ("H100 PCIe", {"H100 PCIe"}, None),
        ("H100 NVL", {"H100 NVL"}, None),
        ("HGX H100", {"H100 SXM"}, None),
        ("AMD Radeon RX 7900 XTX", {"Radeon RX 7900 XTX"}, None),
        ("AMD 7900 XTX", {"Radeon RX 7900 XTX"}, None),
        ("NVIDIA 4090", {"RTX 4090"}, None),
        ("4090RTX", {"RTX 4090"}, None),
        ("1080TiGTX", {"GTX 1080 Ti"}, None),
        ("RTX 4090 PCIe", {"RTX 4090"}, None),
        ("a100-80gb:4", {"A100 SXM 80GB", "A100 PCIe 80GB"}, 4),
        ("80 GB A100", {"A100 SXM 80GB", "A100 PCIe 80GB"}, None),
        ("RTX_4070S_Ti", {"RTX 4070 Ti SUPER"}, None),
    ],
)
def test_a_wish_means_these_models_and_so_many(query: str, models: set[str] | None, count: int | None) -> None:
    if models is None:
        assert isinstance(resolve(query, PRESENT), Unknown)
        return
    assert meant(query).models == models and meant(query).count == count


def test_a_vendor_means_its_own_cards_alone() -> None:
    amd, nvidia = meant("AMD").models, meant("NVIDIA").models
    assert amd & nvidia == frozenset() and "Radeon RX 7900 XTX" in amd and "RTX 4090" in nvidia
    assert isinstance(resolve("AMD 4090", PRESENT), Unknown)


def test_memory_that_the_name_does_not_settle_is_left_to_check() -> None:
    assert meant("rtx 3080 12gb") == Match(frozenset({"RTX 3080"}), sizes={"RTX 3080": frozenset({12})})
    assert meant("3080 10GB or 3080 12GB").sizes == {"RTX 3080": frozenset({10, 12})}
    assert meant("3080 12GB or 3080").sizes == {}
    assert meant("3080, 12GB").sizes == {"RTX 3080": frozenset({12})}
    assert meant("A100 80GB").sizes == {}


@pytest.mark.parametrize("number", ["4000", "4500", "5000", "6000"])
def test_a_number_of_three_generations_is_asked_back(number: str) -> None:
    for query in (f"RTX {number}", number, f"2x rtx_{number}", f"4090 or RTX {number}"):
        with pytest.raises(ArgumentInvalid, match=f"RTX {number} Ada") as refused:
            resolve(query, PRESENT)
        assert "may be" in refused.value.message and "which one" in (refused.value.hint or "")
        assert f"RTX PRO {number} Blackwell" in refused.value.message


@pytest.mark.parametrize(
    "query", ["2x 4090 or 4x 3090", "4090 or 2x 3090", "2x 4090 x4", "8 GPUs 4x 4090", "4090 or 3090 x2"]
)
def test_two_numbers_of_gpus_are_asked_back(query: str) -> None:
    with pytest.raises(ArgumentInvalid, match="different numbers"):
        resolve(query, PRESENT)


def test_a_number_in_the_name_counts_where_the_argument_is_not_given() -> None:
    market = snapshot(*(wire(count, specs={"gpu": f"{count}x RTX 4090"}, price=price(count)) for count in range(1, 9)))

    def found(**query: Any) -> list[int]:
        return [one.listing.gpu_count for one in search(market, Query(**query), FEES, None, 0).matches]

    assert found(gpu="4090:1") == [1]
    assert found(gpu="2 4090s") == [2]
    assert found(gpu="2x 4090", max_gpus=4) == [2, 3, 4]
    assert found(gpu="4x 4090", min_gpus=2) == [2, 3, 4]
    for bounds in ({"min_gpus": 4}, {"max_gpus": 1}):
        with pytest.raises(ArgumentInvalid, match="2 GPUs"):
            found(gpu="2x 4090", **bounds)


def test_what_is_cut_off_of_a_long_wish_is_never_lost_silently() -> None:
    whole = " or ".join(["4090", "3090", "3080", "A100 80GB", "H100 SXM5", "H100 PCIe", "L40S", "RTX A6000"])
    assert len(whole) > 60 and "RTX A6000" in meant(whole).models
    assert isinstance(resolve("4090 " + "or 3090 " * 40, PRESENT), Unknown)


@pytest.mark.parametrize(
    "query",
    ["any", "a GPU", "some cards", "8 GPUs", "显卡", "\u200b", "?!", "×2", "the GPU with any memory", "all", "2x"],
)
def test_a_wish_of_which_nothing_is_left_is_unknown(query: str) -> None:
    found = resolve(query, PRESENT)
    assert isinstance(found, Unknown), found
    result = search(snapshot(wire(1)), Query(gpu=query), FEES, None, 0)
    assert result.total_matches == 0 and result.suggestions


def test_a_word_that_no_card_has_makes_the_wish_unknown_and_is_named() -> None:
    found = resolve("4090 or better", PRESENT)
    assert isinstance(found, Unknown) and found.said == "better"


@given(st.text(max_size=80) | st.from_regex(r"(any|gpu|a|cards|x|:|8|2x|or|/|,|显卡|\u200b| ){0,8}", fullmatch=True))
def test_no_text_means_every_model(query: str) -> None:
    try:
        found = resolve(query, PRESENT)
    except ArgumentInvalid as refused:
        assert refused.hint
        return
    if isinstance(found, Match):
        assert found.models
        unsettled = found.models - found.sizes.keys()
        assert not unsettled >= CARDS.keys(), "only a size or a vendor stands for many"
        said = unicodedata.normalize("NFKC", query)
        assert any((char.isascii() and char.isalnum()) or char.isdecimal() for char in said) or not said.isascii()
    else:
        assert len(found.query) <= 60 and len(found.said or "") <= 60


def test_known_cards_are_named_as_listings_are_and_found_by_their_names() -> None:
    for model, card in CARDS.items():
        assert canonical(model) == model
        assert canonical(model, card.vram_gb[0]) == model
        assert model in meant(model).models, model
        assert card.speed > 0 and all(card.vram_gb)


def test_what_completion_offers_is_found_again() -> None:
    listed = {canonical(one.name, size) for one in GPUS for size in one.vram}
    for model in listed:
        found = resolve(model, listed)
        assert isinstance(found, Match) and model in found.models, model


@pytest.mark.parametrize(
    ("query", "present"),
    [
        pytest.param("gtx 3090", "RTX 3090", id="line"),
        pytest.param("tian xp", "TITAN Xp", id="typing mistake"),
        pytest.param("rtx 6090", "RTX 5090", id="not sold yet"),
    ],
)
def test_an_unknown_name_brings_the_nearest_real_ones(query: str, present: str) -> None:
    found = resolve(query, [present, "Mixed GPUs"])
    assert isinstance(found, Unknown) and found.nearest == (present,)


@pytest.mark.parametrize(
    ("wanted", "others", "first"),
    [
        ("H100 SXM", ["GTX 1060 6GB", "RTX 3060", "A100 SXM 80GB", "RTX 4090"], "A100 SXM 80GB"),
        ("RTX 4090", ["RTX 4070", "RTX 3090", "GTX 1080 Ti", "RTX A4000"], "RTX 3090"),
        ("GTX 1060 6GB", ["H100 SXM", "RTX 4090", "P106-100"], "P106-100"),
        ("L40S", ["RTX 4090", "RTX A6000", "RTX 3080"], "RTX A6000"),
        ("RTX 5090", ["RTX 4080", "RTX 4090", "Tesla P40", "RTX 5000 Ada"], "RTX 5000 Ada"),
    ],
)
def test_what_stands_in_for_a_card_is_near_in_memory_and_class(wanted: str, others: list[str], first: str) -> None:
    assert nearest([wanted], others)[0] == first


def test_of_a_card_that_is_known_and_not_listed_the_nearest_are_told_with_their_prices() -> None:
    market = snapshot(
        wire(1, specs={"gpu": "1x NVIDIA GeForce GTX 1060 6GB", "gpuram": 6}, price=price(0.5)),
        wire(2, specs={"gpu": "1x NVIDIA A100-SXM4-80GB", "gpuram": 80}, price=price(24)),
        wire(3, specs={"gpu": "1x NVIDIA A100-SXM4-80GB", "gpuram": 80}, price=price(20), net={"cc": "US"}),
        wire(4, specs={"gpu": "1x NVIDIA GeForce RTX 4090"}, price=price(8)),
    )
    result = search(market, Query(gpu="H100", countries=("DE",)), FEES, None, 0)
    assert (result.total_matches, result.unknown_gpu) == (0, None)
    assert result.suggestions == (
        "'H100' is known, but none is listed now.",
        "Nearest by memory and class that pass the other filters: A100 SXM 80GB (80 GB, from 1.1 USD per hour),"
        " RTX 4090 (24 GB, from 0.3667 USD per hour), GTX 1060 6GB (6 GB, from 0.023 USD per hour).",
    )
    elsewhere = search(market, Query(gpu="H100", countries=("FR",)), FEES, None, 0).suggestions[1]
    assert elsewhere.startswith("Nearest by memory and class that are free, whatever the other filters: A100 SXM 80GB")
    assert "0.9167" in elsewhere


def test_of_a_card_whose_servers_are_all_rented_the_nearest_are_told_too() -> None:
    market = snapshot(wire(1, rented=True), wire(2, specs={"gpu": "2x NVIDIA GeForce RTX 3090"}, price=price(6)))
    rented, nearest_one = search(market, Query(gpu="4090"), FEES, None, 0).suggestions
    assert "1 server that would match is rented now" in rented
    assert nearest_one.endswith("RTX 3090 (24 GB, from 0.275 USD per hour).")
