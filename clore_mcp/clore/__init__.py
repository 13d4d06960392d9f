"""The Clore API, usable on its own: a client, its results, and the schedule of requests."""

from clore_mcp.clore.client import (
    DEFAULT_API_URL,
    CloreClient,
    Created,
    CreateRequest,
    OrdersReply,
    read_marketplace,
)
from clore_mcp.clore.exchange import USER_AGENT, BeforeSend, Timing
from clore_mcp.clore.models import (
    Offer,
    OrderRow,
    RenterFees,
    Rows,
    ServerRow,
    SpotBook,
    Wallet,
)
from clore_mcp.clore.pacer import Gaps, Lane, Pacer, Turn

__all__ = [
    "DEFAULT_API_URL",
    "USER_AGENT",
    "BeforeSend",
    "CloreClient",
    "CreateRequest",
    "Created",
    "Gaps",
    "Lane",
    "Offer",
    "OrderRow",
    "OrdersReply",
    "Pacer",
    "RenterFees",
    "Rows",
    "ServerRow",
    "SpotBook",
    "Timing",
    "Turn",
    "Wallet",
    "read_marketplace",
]
