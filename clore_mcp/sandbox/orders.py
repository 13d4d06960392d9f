"""Servers, wallets, accounts and orders of the market, with the facts that follow from the time alone."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

from .images import ContainerState
from .intake import COINS
from .options import Options
from .spot import SimulatedBid

DAY = 86_400
_FEES = {"bitcoin": 0.00005, "CLORE-Blockchain": 1, "USD-Blockchain": 0.5}
SEEMINGS = ("as_it_is", "expired", "vanished", "both")
"""What my_orders may report of an order: the truth, that it has ended, nothing, or both. "both" means that the list of
current orders shows it as running, and the list of completed ones as ended."""


@dataclass(slots=True)
class Server:
    """A listed server. `row` is its listing. `elsewhere`: someone outside this sandbox rents it."""

    id: int
    row: dict[str, Any]
    elsewhere: bool
    online: bool = True
    listed: bool = True
    rivals: list[SimulatedBid] = field(default_factory=list)


@dataclass(slots=True)
class SimulatedWallet:
    """One coin of an account. A legacy wallet has neither address nor balance."""

    name: str
    deposit: str | None
    balance: float | None
    withdrawal_fee: float

    def take(self, amount: float) -> None:
        """Take money out. The meter checks that there is enough."""
        self.balance = (self.balance or 0.0) - amount


@dataclass(slots=True)
class Account:
    """What one API key owns."""

    key: str
    wallets: dict[str, SimulatedWallet]


@dataclass(slots=True)
class SimulatedOrder:
    """An order. It is billed in stretches: from `stretch_from`, `stretch_s` seconds at `price` a day so far.

    `up_since` is when its container started on its present server. A new price doesn't restart it.
    """

    id: int
    key: str
    server_id: int
    image: str
    currency: str
    price: float
    spot: bool
    ct: int
    mrl_s: float
    fee_rate: float
    creation_fee: float
    wallet: SimulatedWallet
    ports: dict[str, str]
    visible_at: float
    deploy_after: float
    ssh: str = "ssh_answers"  # or one of faults.SSH_FAULTS: how its port 22 behaves
    http_pub: str = ""
    inside: ContainerState = field(default_factory=ContainerState)
    public_ports: dict[str, int] = field(default_factory=dict)
    creation_fee_after: float = 600.0
    up_since: float | None = None
    stretch_from: int | None = None
    stretch_s: int = 0
    spent_before: float = 0.0
    fee_paid: float = 0.0
    creation_paid: float = 0.0
    creation_due: float | None = None
    lowered_at: float | None = None
    ended_at: float | None = None
    end_reason: str | None = None
    seeming: str = "as_it_is"  # what my_orders reports of it until `seeming_until`, true or not
    seeming_until: float = 0.0
    row: dict[str, Any] = field(default_factory=dict)  # keys that my_orders shows instead of the true ones
    twin: dict[str, Any] | None = None  # the same for a second row of it

    def seems(self, now: float) -> str:
        """Return what my_orders reports of it now, one of `SEEMINGS`."""
        return self.seeming if now < self.seeming_until else "as_it_is"

    def listed_in(self, completed: bool, now: float) -> bool:
        """Return whether my_orders lists it. `completed`: completed orders are requested too."""
        match self.seems(now):
            case "vanished":
                return False
            case "expired":
                return completed
            case "both":
                return True
        return completed or self.ended_at is None

    def seems_expired(self, completed: bool, now: float) -> bool:
        """Return whether its row shows it as ended."""
        match self.seems(now):
            case "expired":
                return True
            case "both":
                return completed
        return self.ended_at is not None

    @property
    def running(self) -> bool:
        """Return whether it has the server and costs money."""
        return self.stretch_from is not None and self.ended_at is None

    @property
    def spend(self) -> float:
        """Return the rent so far without any fees, as `my_orders` shows it."""
        return self.spent_before + self.price * self.stretch_s / DAY

    @property
    def total(self) -> float:
        """Return everything that the wallet has paid for it."""
        return self.spend + self.fee_paid + self.creation_paid

    @property
    def cost_per_second(self) -> float:
        """Return the rent and fee per second."""
        return self.price / DAY * (1 + self.fee_rate)

    @property
    def billed_until(self) -> int:
        """Return the moment up to which the present stretch is billed. It is meaningful only while the order runs."""
        return (self.stretch_from or 0) + self.stretch_s

    def whole_minutes(self, until: float) -> int:
        """Return the seconds of whole minutes up to `until` that are not billed yet."""
        return max(0, int((until - self.billed_until) // 60) * 60) if self.running else 0

    def milestones(self) -> list[float]:
        """Return the moments at which more than a minute's billing happens."""
        moments = [self.creation_due] if self.running and self.creation_due is not None else []
        return moments if self.spot else [*moments, self.ct + self.mrl_s]

    def begin_stretch(self, at: float) -> None:
        """Give it the server from now on."""
        self.spent_before, self.stretch_s = self.spend, 0
        self.stretch_from = int(at)
        self.up_since = at if self.up_since is None else self.up_since
        if self.creation_paid == 0.0 and self.creation_due is None:
            self.creation_due = self.stretch_from + self.creation_fee_after

    def close_stretch(self) -> None:
        """Take the server from it. What was billed stays."""
        self.spent_before, self.stretch_s, self.stretch_from = self.spend, 0, None

    def deployed_at(self) -> float:
        """Return when `mon_container` becomes 2, or infinity while it has no server or can't start."""
        up = self.up_since is not None and self.inside.starts
        return (self.up_since or 0.0) + self.deploy_after if up else math.inf


def wallets_of(key: str, options: Options) -> dict[str, SimulatedWallet]:
    """Return wallets whose addresses are stable for a key and obviously not real."""
    balances = dict(zip(COINS, (options.balance_btc, options.balance_clore, options.balance_usd), strict=True))
    wallets = {}
    for coin, balance in balances.items():
        address = "sandbox" + hashlib.sha256(f"{key} {coin}".encode()).hexdigest()[:27]
        legacy = options.legacy_wallet and coin == "bitcoin"
        wallets[coin] = SimulatedWallet(
            coin, None if legacy else address, None if legacy else balance or 0, _FEES[coin]
        )
    return wallets
