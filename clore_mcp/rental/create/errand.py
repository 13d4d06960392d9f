"""One candidate of an approved rental: what its create asks for, and what of that is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from clore_mcp.clore import CreateRequest
from clore_mcp.market.rates import OrderType
from clore_mcp.rental.create.images import brings_sshd
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.rules.terms import Candidate, Terms
from clore_mcp.store.quotes import Quote


@dataclass(frozen=True, slots=True)
class Errand:
    """One candidate of an approved quote. `from_state` is where its yes stands, `by` who gave it."""

    quote: Quote
    ask: CreateOrder
    terms: Terms
    candidate: Candidate
    from_state: str
    by: str
    secrets: Mapping[str, str] = field(repr=False)

    def request(self, price: Decimal, key: str) -> CreateRequest:
        """What to send: `price` per day is the listing's own number, or the bid; `key` the SSH key to let in."""
        ask, spot = self.ask, self.terms.order_type is OrderType.SPOT
        return CreateRequest(
            server_id=self.candidate.server_id,
            image=ask.image,
            coin=self.candidate.coin,
            order_type=ask.order_type,
            spot_price=price if spot else None,
            required_price=None if spot else price,
            ports=ask.wire_ports,
            env=ask.env or {},
            ssh_key=key,
            jupyter_token=self.secrets.get("jupyter_token"),
            command=ask.command,
            autossh_entrypoint=not brings_sshd(ask.image),
        )


def as_record(request: CreateRequest) -> dict[str, Any]:
    """What a create asks for, for the record: nothing in it is a secret."""
    asked = {"required_price": request.required_price, "spotprice": request.spot_price}
    return {
        "image": request.image,
        "order_type": request.order_type,
        "currency": request.coin.value,
        **{f"{name}_per_day": str(price) for name, price in asked.items() if price is not None},
    }
