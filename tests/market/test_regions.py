from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market.regions import COUNTRIES, REGIONS, codes


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["de"], {"DE"}), (["UK"], {"GB"}), (["usa"], {"US"}), (["U.S.A."], {"US"}), (["United States"], {"US"}),
        (["the Netherlands"], {"NL"}), (["South Korea"], {"KR"}), (["de, nl", "Fr"], {"DE", "NL", "FR"}), ([], set()),
        (["DEU", "gbr"], {"DE", "GB"}), (["AUT,Benelux"], {"AT", "BE", "LU", "NL"}),
        (["Czech Republic"], {"CZ"}), (["türkiye", "TR"], {"TR"}),
    ],
)  # fmt: skip
def test_countries_by_code_or_name(words: list[str], some: set[str]) -> None:
    assert codes(words) == some


def test_regions_hold_their_countries() -> None:
    assert {"DE", "FR", "GB", "UA", "NO"} <= codes(["Europe"])
    assert not codes(["Europe"]) & {"RU", "BY"}, "who asks for Europe rarely means these; each can be named"
    assert {"DE", "CY"} <= codes(["eu"])
    assert not codes(["eu"]) & {"GB", "RU", "CH", "NO"}
    assert len(codes(["european union"])) == 27
    assert {"US", "CA", "MX"} <= codes(["north-america"]) == codes(["North America"]) == codes(["north_america"])
    assert {"BR", "AR"} <= codes(["south-america"])
    assert {"JP", "KR", "HK", "TR", "KZ"} <= codes(["asia"])
    assert {"ZA", "EG", "RE"} <= codes(["africa"])
    assert {"AU", "NZ"} <= codes(["oceania"])


def test_every_region_is_made_of_countries_and_no_continent_shares_one() -> None:
    assert all(region <= COUNTRIES for region in REGIONS.values())
    continents = [REGIONS[name] for name in ("africa", "asia", "europe", "north-america", "south-america", "oceania")]
    assert sum(map(len, continents)) == len(frozenset().union(*continents)) == len(COUNTRIES) - 3 == 247


@pytest.mark.parametrize(("word", "near"), [("germny", "germany"), ("north-amerika", "north-america"), ("XX", "'XX'")])
def test_an_unknown_place_is_refused_with_the_nearest_names(word: str, near: str) -> None:
    with pytest.raises(ArgumentInvalid, match=re.escape(near)) as refused:
        codes([word], "exclude_countries")
    assert refused.value.message.startswith("exclude_countries: ")
    assert "europe" in refused.value.hint


@given(st.text())
def test_any_text_is_countries_or_a_refusal(word: str) -> None:
    try:
        assert codes([word]) <= COUNTRIES
    except ArgumentInvalid as refused:
        assert len(refused.message) < 200
