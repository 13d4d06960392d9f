"""What an order has cost in the end, as its row and the ledger keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class OrderReceipt:
    """Hours, and USD in parts and in all, rounded as they are shown. `estimated`: the fees are computed from tables."""

    hours: float
    rent_usd: float
    fee_usd: float
    creation_fee_usd: float
    total_usd: float
    estimated: bool = True

    def as_json(self) -> dict[str, Any]:
        """For a row or a reply."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> OrderReceipt:
        """The receipt that `as_json` wrote."""
        return cls(**row)
