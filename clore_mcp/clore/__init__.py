"""The Clore API, usable on its own: a client, its results, and the schedule of requests."""

from clore_mcp.clore.client import (
    CloreClient,
    Created,
    CreateRequest,
    OrdersReply,
    read_marketplace,
)
from clore_mcp.clore.exchange import USER_AGENT, Timing
from clore_mcp.clore.models import (
    OrderRow,
    Rows,
    ServerRow,
    SpotBook,
    Wallet,
)
from clore_mcp.clore.pacer import Gaps, Lane, Pacer

__all__ = [
    "USER_AGENT",
    "CloreClient",
    "CreateRequest",
    "Created",
    "Gaps",
    "Lane",
    "OrderRow",
    "OrdersReply",
    "Pacer",
    "Rows",
    "ServerRow",
    "SpotBook",
    "Timing",
    "Wallet",
    "read_marketplace",
]
