"""Finds what speaks against a server, in a few words each, from its listing and its model's usual price.

Concerns hide no server and raise no price. The cheapest server still comes first, with its concerns beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from clore_mcp.market.gpus import latin
from clore_mcp.market.listing import Listing
from clore_mcp.market.summary import Quartiles
from clore_mcp.money import plain, shown_up

CHEAP: Final = Decimal("0.4")  # of the median price of one GPU of the model
USUAL_FROM: Final = 4  # servers; with fewer there is no usual price
RELIABLE: Final = 0.9
LOW_RATING: Final = 2.5
IMAGE_GB: Final = 5
LONG_MINUTES: Final = 30

_COMMANDS: Final = re.compile(
    r"\b(?:ignor(?:e|ed|ing)|disregard|forget|instructions?|prompts?|approved?|assistant|please|must|never|always|confirm"
    r"|(?:create|cancel|extend|quote)_order|without asking|rent (?:me|this|now)|say yes|you (?:are|should|will|can))\b"
)
_ORDINARY_WORD: Final = re.compile(r"\b[a-z]{3,}\b")
_ORDINARY_WORDS: Final = 4  # in lower case: hardware is "Gold", "Processor", "with Radeon Graphics"


def concerns(
    listing: Listing,
    on_demand_usd: Decimal | None,
    spot_usd: Decimal | None,
    usual: Quartiles | None,
    *,
    for_bid: bool = False,
) -> tuple[str, ...]:
    """Return what speaks against this server, the gravest first. Its on-demand price and lowest bid are in USD per hour
    including the fee. `usual` is per GPU of the model, on demand. `for_bid`: the price shown is that bid."""
    return (
        *_of_text(listing),
        *_of_price(listing, on_demand_usd, usual),
        *_of_spot(on_demand_usd, spot_usd, for_bid=for_bid),
        *_of_host(listing),
        *_of_hardware(listing),
    )


def _of_text(listing: Listing) -> Iterator[str]:
    texts = (listing.cpu, listing.gpu, listing.board, listing.disk_model, *(model for model, _ in listing.gpu_mix))
    if any(_COMMANDS.search(latin(text)) or len(_ORDINARY_WORD.findall(text)) >= _ORDINARY_WORDS for text in texts):
        yield "host text reads like instructions"


def _of_price(listing: Listing, usd: Decimal | None, usual: Quartiles | None) -> Iterator[str]:
    if usual is None or usual.servers < USUAL_FROM or usd is None:
        return
    part = usd / listing.gpu_count / usual.median
    if part < CHEAP:
        percent = round(part * 100)
        yield f"{percent} % of the usual price" if percent else "under 1 % of the usual price"


def _of_spot(on_demand_usd: Decimal | None, spot_usd: Decimal | None, *, for_bid: bool) -> Iterator[str]:
    """Yield concerns about the bid, from the figures as they are shown, so that they agree."""
    if on_demand_usd is None or spot_usd is None:
        return
    fixed, least = shown_up(on_demand_usd), shown_up(spot_usd)
    if for_bid and least >= fixed:
        yield f"on-demand costs {plain(Decimal(str(fixed)))}"
    elif least > fixed:
        yield "spot minimum above on-demand"


def _of_host(listing: Listing) -> Iterator[str]:
    if listing.reliability is None:
        yield "reliability unknown"
    elif listing.reliability < RELIABLE:
        yield f"reliability {round(listing.reliability, 2):g}"
    if not listing.rating_count or listing.rating is None:
        yield "unrated"
    elif listing.rating < LOW_RATING:
        yield f"rating {round(listing.rating, 1):g} of 5"


def _of_hardware(listing: Listing) -> Iterator[str]:
    ram, vram = listing.ram_gb, listing.vram_gb
    if ram is not None and vram is not None and round(ram) < vram:
        article = "an" if vram in (8, 11, 18) or 80 <= vram < 90 else "a"
        yield f"{round(ram)} GB RAM for {article} {vram} GB GPU"
    if listing.download_mbps is not None and (slow := _slow_download(listing.download_mbps)):
        yield slow
    if listing.gpus_disputed:
        yield "two GPU counts stated, the smaller counts"


def _slow_download(mbps: float) -> str | None:
    if mbps < 1:
        return f"under 1 Mbps: a {IMAGE_GB} GB image takes a day"
    minutes = IMAGE_GB * 8_000 / mbps / 60
    if minutes < LONG_MINUTES:
        return None
    hours = "an hour" if minutes < 75 else f"{minutes / 60:.2g} hours"
    return f"{mbps:.0f} Mbps: a {IMAGE_GB} GB image takes {f'{minutes:.0f} minutes' if minutes < 55 else hours}"
