from __future__ import annotations

from decimal import Decimal

from clore_mcp.market.pricing import Fees
from clore_mcp.market.summary import gpu_models_summary, quartiles
from tests.market.rows import price, snapshot, wire

FEES = Fees.highest_documented()


def test_models_are_counted_free_and_in_all() -> None:
    market = snapshot(
        wire(1, price=price(24)),
        wire(2, price=price(48), rented=True),
        wire(3, price=price(-1)),
        wire(4, partial_gpu_rental={"total_gpus": 2, "available_gpus": 1}),
        wire(5, specs={"gpu": "8x NVIDIA GeForce RTX 3090"}, rented=True),
    )
    first, second = gpu_models_summary(market, FEES)
    assert (first.model, first.servers, first.servers_free, first.gpus, first.gpus_free) == ("RTX 4090", 4, 2, 8, 4)
    assert first.cheapest_free_usd_per_gpu_hour == Decimal("0.55")
    assert first.usd_per_gpu_hour is not None
    assert (first.usd_per_gpu_hour.median, first.usd_per_gpu_hour.servers) == (Decimal("0.825"), 2)
    assert (second.model, second.gpus_free, second.cheapest_free_usd_per_gpu_hour) == ("RTX 3090", 0, None)
    assert second.vram_gb == (24,)


def test_quartiles_of_few_values() -> None:
    assert quartiles([]) is None
    one = quartiles([Decimal(2)])
    assert one and (one.low, one.median, one.high, one.servers) == (Decimal(2), Decimal(2), Decimal(2), 1)
    two = quartiles([Decimal(3), Decimal(1)])
    assert two and (two.low, two.median, two.high) == (Decimal("1.5"), Decimal(2), Decimal("2.5"))
