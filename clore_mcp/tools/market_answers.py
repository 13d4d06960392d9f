"""The answer models of the market tools."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, WithJsonSchema

from clore_mcp.tools.kit import OBJECT_ELSEWHERE, ROWS_ELSEWHERE, Answer


class ShownServer(Answer):
    server_id: int
    gpu: str
    gpu_count: int
    vram_gb: int | None = None
    usd_per_hour: float | None = None
    usd_per_gpu_hour: float | None = None
    currency: str | None = None
    spot_min_usd_per_hour: float | None = None
    country: str | None = None
    reliability: float | None = None
    rating: float | None = None
    rating_count: int | None = None
    ram_gb: float | None = None
    disk_gb: float | None = None
    cpu: str | None = None
    download_mbps: float | None = None
    upload_mbps: float | None = None
    cuda: str | None = None
    max_rental_hours: float | None = None
    rented: bool
    partly_rented: bool = False
    failed_here: int | None = None
    concerns: Annotated[list[str] | None, Field(description="Risks. Tell the person.")] = None


class SearchAnswer(Answer):
    servers: list[ShownServer]
    total_matches: int
    next_cursor: str | None = None
    snapshot_age_seconds: float
    excluded: Annotated[
        dict[str, int] | None, OBJECT_ELSEWHERE, Field(description="How many servers each filter alone removed.")
    ] = None
    suggestions: list[str] | None = None
    typical_usd_per_gpu_hour: Annotated[
        dict[str, float] | None,
        OBJECT_ELSEWHERE,
        Field(description="Quartiles of this model now, including rented servers."),
    ] = None
    stale: str | None = None
    fees_assumed: Annotated[bool, Field(description="Fees unknown; the highest documented fees are used.")] = False


class CoinPrice(Answer):
    """The price in one coin that the host accepts."""

    currency: str
    coin_per_day: float
    usd_per_hour: float


class ShownOffer(Answer):
    usd_per_hour: float
    active: bool = False
    mine: bool = False


class Spot(Answer):
    min_usd_per_hour: float | None = None
    to_win_usd_per_hour: float | None = None
    our_rank: int | None = None
    offers: Annotated[list[ShownOffer], ROWS_ELSEWHERE] = []


class ServerAnswer(ShownServer):
    prices: Annotated[list[CoinPrice], ROWS_ELSEWHERE] = []
    spot: Spot | None = None
    gpu_mix: Annotated[dict[str, int] | None, OBJECT_ELSEWHERE] = None
    cpu_threads: int | None = None
    board: str | None = None
    disk_model: str | None = None
    disk_mb_per_second: float | None = None
    pcie: str | None = None
    snapshot_age_seconds: float


class PriceRange(Answer):
    """The quartiles of some prices, the cheapest free one, and the lowest; of a bucket, from which time on."""

    model_config = ConfigDict(serialize_by_alias=True)

    from_: Annotated[str | None, Field(serialization_alias="from")] = None
    low: float
    median: float
    high: float
    cheapest_free: float | None = None
    lowest: float | None = None


ShownRange = Annotated[PriceRange, WithJsonSchema({"type": "object", "additionalProperties": True})]


class ModelPrices(Answer):
    """What one GPU of a model costs now and has cost, in USD per hour."""

    gpu: str
    now: ShownRange | None = None
    usual: ShownRange | None = None
    cheapest_free: ShownRange | None = None
    dearer_than_now_percent: int | None = None
    ceiling_met_percent: int | None = None
    buckets: list[ShownRange] = []


class PricesAnswer(Answer):
    models: list[ModelPrices]
    bucket_hours: int
    hours_recorded: int
    recorded_since: str | None = None
    next: str = ""
