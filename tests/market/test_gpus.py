from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.market.gpus import MIXED, UNKNOWN, Gpus, canonical, of_server
from clore_mcp.market.wish import Match, Unknown, resolve

PRESENT = (
    "RTX 4090", "RTX 4090 D", "RTX 4070", "RTX 4070 Ti", "RTX 4070 SUPER", "RTX 4070 Ti SUPER", "RTX 3080",
    "RTX 3080 Ti", "RTX 3080 Laptop", "RTX 3090", "A100 SXM 40GB", "A100 SXM 80GB", "A100 PCIe 80GB", "H100 SXM",
    "H100 PCIe", "H100 NVL", "H100", "L40S", "RTX A6000", "Radeon RX 7900 XTX",
    "RTX 6000 Ada", "Quadro RTX 6000", "GTX 1660 SUPER", "GTX 1060 3GB", "GTX 1060 6GB", "P106-100", "P106-090",
    "Tesla P40", "Tesla V100 SXM 16GB", "TITAN Xp", "TITAN RTX", "CMP 50HX", "RTX PRO 6000 Blackwell", MIXED,
)  # fmt: skip


@pytest.mark.parametrize(
    ("reported", "vram_gb", "name"),
    [
        ("1x NVIDIA GeForce RTX 4090", 23, "RTX 4090"),
        (" RTX 3090", 24, "RTX 3090"),
        ("12x NVIDIA GeForce RTX 3070 Laptop GPU", 8, "RTX 3070 Laptop"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 16, "RTX 4070 Ti SUPER"),
        ("geforce rtx4070tisuper", 16, "RTX 4070 Ti SUPER"),
        ("11x NVIDIA GeForce GTX 1660 SUPER", 6, "GTX 1660 SUPER"),
        ("NVIDIA P106100", 6, "P106-100"),
        ("NVIDIA P106090", 3, "P106-090"),
        ("Quadro P620", 2, "Quadro P620"),
        ("2x Tesla P40", 24, "Tesla P40"),
        ("6x Mixed GPUs", 8, MIXED),
        ("NVIDIA A100-SXM4-80GB", 79.1, "A100 SXM 80GB"),
        ("NVIDIA A100-PCIE-40GB", 39.6, "A100 PCIe 40GB"),
        ("NVIDIA A100 80GB PCIe", None, "A100 PCIe 80GB"),
        ("A100", 79.1, "A100 80GB"),
        ("A100", 39.5, "A100 40GB"),
        ("A100", None, "A100"),
        ("Tesla V100-SXM2-32GB", 31.7, "Tesla V100 SXM 32GB"),
        ("NVIDIA H100 80GB HBM3", 79.6, "H100 SXM"),
        ("NVIDIA A100SXM440GB", 39.5, "A100 SXM 40GB"),
        ("NVIDIA A100SXM480GB", None, "A100 SXM 80GB"),
        ("NVIDIA A100PCIE40GB", None, "A100 PCIe 40GB"),
        ("NVIDIA A10080GBPCIe", None, "A100 PCIe 80GB"),
        ("NVIDIA A10040GBPCIe", 39.5, "A100 PCIe 40GB"),
        ("NVIDIA H10080GBHBM3", 79.6, "H100 SXM"),
        ("NVIDIA H100PCIe", 79.6, "H100 PCIe"),
        ("NVIDIA H100NVL", 93.6, "H100 NVL"),
        ("Tesla P100PCIE16GB", 16, "Tesla P100 PCIe"),
        ("Tesla V100FHHL16GB", 16, "Tesla V100 PCIe 16GB"),
        ("NVIDIA A40PCIE48GB", 45, "A40"),
        ("NVIDIA H200", 141, "H200 SXM"),
        ("NVIDIA H200 NVL", 141, "H200 NVL"),
        ("NVIDIA H100", 79.6, "H100"),
        ("NVIDIA RTX 6000", 23.6, "Quadro RTX 6000"),
        ("NVIDIA RTX 6000", None, "RTX 6000"),
        ("RTX_6000Ada", 48, "RTX 6000 Ada"),
        ("RTX_PRO_6000_WS", 96, "RTX PRO 6000 Blackwell"),
        ("NVIDIA A10", 22, "A10"),
        ("NVIDIA A1000", 8, "A1000"),
        ("NVIDIA RTX A4000", 16, "RTX A4000"),
        ("AMD Radeon Pro VII", 16, "Radeon PRO VII"),
        ("Tesla V100SXM216GB", 15.8, "Tesla V100 SXM 16GB"),
        ("Tesla V100SXM232GB", None, "Tesla V100 SXM 32GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation", 95.6, "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 95.6, "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX PRO 6000 Blackwell MaxQ Works", 95.6, "RTX PRO 6000 Blackwell Max-Q"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 95.6, "RTX PRO 6000 Blackwell Max-Q"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edit", 95.6, "RTX PRO 6000 Blackwell Server"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 95.6, "RTX PRO 6000 Blackwell Server"),
        ("NVIDIA GeForce RTX 5090 D v2", 24, "RTX 5090 D v2"),
        ("AMD Radeon RX 6800 XT", 16, "Radeon RX 6800 XT"),
        ("NVIDIA CMP 170HX", 8, "CMP 170HX"),
        ("NVIDIA GeForce GTX 1060 6GB", 6, "GTX 1060 6GB"),
        ("NVIDIA RTX 6000 Ada Generation", 48, "RTX 6000 Ada"),
        ("NVIDIA GeForce RTX 2080 with Max-Q Design", 8, "RTX 2080 Max-Q"),
        ("NVIDIA TITAN Xp", 12, "TITAN Xp"),
        ("7x NVIDIA CMP 50HX", 10, "CMP 50HX"),
        ("NVIDIA Graphics Device", 16, "Graphics Device"),
        ("AMD Radeon RX 7900 XTX", 24, "Radeon RX 7900 XTX"),
        ("", None, UNKNOWN),
        ("\u202e\x00", None, UNKNOWN),
    ],
)
def test_a_reported_name_has_one_spelling(reported: str, vram_gb: float | None, name: str) -> None:
    assert canonical(reported, vram_gb) == name
    assert canonical(name, vram_gb) == name


@pytest.mark.parametrize(
    ("query", "models"),
    [
        ("4090", {"RTX 4090"}),
        ("rtx 4090", {"RTX 4090"}),
        ("RTX4090", {"RTX 4090"}),
        ("rtx_4090", {"RTX 4090"}),
        ("RTX-4090", {"RTX 4090"}),
        ("nvidia geforce rtx 4090", {"RTX 4090"}),
        ("4090s", {"RTX 4090"}),
        ("4090d", {"RTX 4090 D"}),
        ("4070", {"RTX 4070"}),
        ("4070s", {"RTX 4070 SUPER"}),
        ("4070 super", {"RTX 4070 SUPER"}),
        ("4070 Ti", {"RTX 4070 Ti"}),
        ("4070tis", {"RTX 4070 Ti SUPER"}),
        ("3080", {"RTX 3080"}),
        ("3080ti", {"RTX 3080 Ti"}),
        ("3080 Ti", {"RTX 3080 Ti"}),
        ("3080 laptop", {"RTX 3080 Laptop"}),
        ("3080 mobile", {"RTX 3080 Laptop"}),
        ("a100", {"A100 SXM 40GB", "A100 SXM 80GB", "A100 PCIe 80GB"}),
        ("A100 80GB", {"A100 SXM 80GB", "A100 PCIe 80GB"}),
        ("a100-80gb", {"A100 SXM 80GB", "A100 PCIe 80GB"}),
        ("A100 80 GB SXM", {"A100 SXM 80GB"}),
        ("A100s", {"A100 SXM 40GB", "A100 SXM 80GB", "A100 PCIe 80GB"}),
        ("h100", {"H100", "H100 SXM", "H100 PCIe", "H100 NVL"}),
        ("h100 nvl", {"H100 NVL"}),
        ("L40S", {"L40S"}),
        ("a6000", {"RTX A6000"}),
        ("rtx pro 6000", {"RTX PRO 6000 Blackwell"}),
        ("1660 super", {"GTX 1660 SUPER"}),
        ("1060", {"GTX 1060 3GB", "GTX 1060 6GB"}),
        ("1060 6gb", {"GTX 1060 6GB"}),
        ("p106", {"P106-100", "P106-090"}),
        ("p106-100", {"P106-100"}),
        ("P40", {"Tesla P40"}),
        ("v100", {"Tesla V100 SXM 16GB"}),
        ("titan", {"TITAN Xp", "TITAN RTX"}),
        ("50hx", {"CMP 50HX"}),
        ("mixed", {MIXED}),
    ],
)  # fmt: skip
def test_a_query_means_these_models(query: str, models: set[str]) -> None:
    match = resolve(query, PRESENT)
    assert isinstance(match, Match)
    assert match.models & set(PRESENT) == models


LIVE = (
    "NVIDIA A100SXM440GB", "NVIDIA A100-SXM4-80GB", "Tesla V100SXM216GB", "Tesla V100SXM232GB",
    "NVIDIA RTX PRO 6000 Blackwell Workstation", "NVIDIA RTX PRO 6000 Blackwell MaxQ Works",
    "NVIDIA RTX PRO 6000 Blackwell Server Edit", "NVIDIA GeForce RTX 5090", "NVIDIA GeForce RTX 5090 D",
    "NVIDIA GeForce RTX 5090 D v2", "NVIDIA Graphics Device", "AMD Radeon RX 7900 XTX", "NVIDIA CMP 90HX",
)  # fmt: skip


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("A100", ("NVIDIA A100SXM440GB", "NVIDIA A100-SXM4-80GB")),
        ("A100 40GB", ("NVIDIA A100SXM440GB",)),
        ("A100 80GB", ("NVIDIA A100-SXM4-80GB",)),
        ("V100", ("Tesla V100SXM216GB", "Tesla V100SXM232GB")),
        ("V100 32GB", ("Tesla V100SXM232GB",)),
        ("RTX PRO 6000", ("NVIDIA RTX PRO 6000 Blackwell Workstation",)),
        ("RTX PRO 6000 Workstation Edition", ("NVIDIA RTX PRO 6000 Blackwell Workstation",)),
        ("RTX PRO 6000 Max-Q", ("NVIDIA RTX PRO 6000 Blackwell MaxQ Works",)),
        ("RTX PRO 6000 Server", ("NVIDIA RTX PRO 6000 Blackwell Server Edit",)),
        ("5090", ("NVIDIA GeForce RTX 5090",)),
        ("5090 D", ("NVIDIA GeForce RTX 5090 D",)),
        ("5090D v2", ("NVIDIA GeForce RTX 5090 D v2",)),
        ("7900 xtx", ("AMD Radeon RX 7900 XTX",)),
        ("graphics device", ("NVIDIA Graphics Device",)),
        ("cmp", ("NVIDIA CMP 90HX",)),
    ],
)
def test_names_as_the_market_spells_them_are_found(query: str, found: tuple[str, ...]) -> None:
    match = resolve(query, [canonical(one) for one in LIVE])
    assert isinstance(match, Match), match
    assert match.models & set(map(canonical, LIVE)) == {canonical(one) for one in found}


def test_a_hostile_query_is_quoted_clean_and_short() -> None:
    found = resolve("zz\u202e\x00" + "y" * 100_000, PRESENT)
    assert isinstance(found, Unknown)
    assert len(found.query) <= 60
    assert "\u202e" not in found.query


@pytest.mark.parametrize("model", PRESENT)
def test_every_model_is_found_by_its_own_name(model: str) -> None:
    match = resolve(model, PRESENT)
    assert isinstance(match, Match)
    assert model in match.models


@pytest.mark.parametrize(
    ("text", "array", "gpus"),
    [
        pytest.param("8x NVIDIA GeForce RTX 3090", None, Gpus("RTX 3090", 8), id="text"),
        pytest.param("2x NVIDIA GeForce RTX 3090", (" RTX 3090", " RTX 3090"), Gpus("RTX 3090", 2), id="both"),
        pytest.param(None, (" RTX 3090",) * 3, Gpus("RTX 3090", 3), id="list"),
        pytest.param("Quadro P620", None, Gpus("Quadro P620", 1), id="no count"),
        pytest.param(
            "3x Mixed GPUs",
            ("RTX 3090", "RTX 3080", "RTX 3080"),
            Gpus(MIXED, 3, (("RTX 3080", 2), ("RTX 3090", 1))),
            id="mix",
        ),
        pytest.param("2x RTX 3090", ("RTX 3090",) * 8, Gpus("RTX 3090", 2, disputed=True), id="dispute"),
        pytest.param(None, None, Gpus(UNKNOWN, 1), id="nothing"),
        pytest.param("0x RTX 3090", None, Gpus("RTX 3090", 1), id="none at all"),
    ],
)
def test_what_a_server_has(text: str | None, array: tuple[str, ...] | None, gpus: Gpus) -> None:
    assert of_server(text, array, 24.0) == gpus


@given(st.text(), st.none() | st.floats(0.1, 1024), st.lists(st.text(), max_size=5))
def test_no_text_breaks_the_reading_of_names(text: str, vram_gb: float | None, array: list[str]) -> None:
    assert 0 < len(canonical(text, vram_gb)) <= 60
    assert of_server(text, array, vram_gb).count >= 1
    assert isinstance(resolve(text, [*PRESENT, *map(canonical, array)]), Match | Unknown)


@given(st.from_regex(r"((rtx|gtx|4090|3080ti|super|s|a100|80gb|40|gb|p106|100|laptop|m|x|-) ){0,6}", fullmatch=True))
def test_a_spelling_is_final(text: str) -> None:
    once = canonical(text, 24)
    assert canonical(once, 24) == once
