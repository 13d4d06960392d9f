"""The sandbox's options, with their defaults and command-line flags, in one frozen record."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

SANDBOX_KEY = "sandbox-key-0000000000000000000x"
"""The key of the default account. It has 32 characters like a real key and is obviously not one."""

_WORD = r"(?:sshd|jupyter|closed|private|cuda[0-9]{1,2}(?:\.[0-9]{1,2})?)"
_IMAGE = re.compile(rf"[^=\s]+={_WORD}(?:,{_WORD})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the simulated market behaves. If the real service's behaviour is unknown, the default is the strictest
    plausible guess, and options select the other guesses."""

    # The market
    seed: Annotated[int, "the same seed gives the same market"] = 2026
    servers: Annotated[int, "how many servers are listed"] = 2600
    hostile: Annotated[bool, "add rows that attack their reader: instructions, control characters, wrong types"] = False
    hostile_endpoints: Annotated[tuple[int, ...], "orders on this server show endpoints that attack a shell"] = ()
    btc_usd: Annotated[float, "market rate of bitcoin in USD"] = 64_000.0
    clore_usd: Annotated[float, "market rate of CLORE in USD"] = 0.00125

    # Accounts
    keys: Annotated[tuple[str, ...], "an API key with an account of its own; repeatable"] = (SANDBOX_KEY,)
    balance_usd: Annotated[float, "USD-Blockchain in each wallet at the start"] = 25.0
    balance_clore: Annotated[float, "CLORE-Blockchain in each wallet at the start"] = 12_000.0
    balance_btc: Annotated[float, "bitcoin in each wallet at the start"] = 0.0004
    legacy_wallet: Annotated[bool, "the bitcoin wallet has a null address and a null balance"] = False
    poh: Annotated[float, "Proof-of-Holding balance in CLORE; 2,000,000 halves the fees"] = 0.0
    order_limit: Annotated[int, "how many orders an account may hold at once (`limit` in my_orders)"] = 16
    order_limit_error: Annotated[str, "error text beyond that limit; the real text is unknown"] = "order-limit-reached"
    funding_hours: Annotated[float, "hours the wallet must cover, else not_enough_balance; real rule unknown"] = 1.0
    minimum_balance_usd: Annotated[
        float, "worth that a wallet must hold for a create besides, else not_enough_balance; real figures unknown"
    ] = 0.0
    user_id: Annotated[int, "`owner` of the servers that are the accounts' own: cant_rent_from_yourself"] = 0

    # Time
    speed: Annotated[float, "market seconds in a real second"] = 1.0
    date: Annotated[Literal["right", "missing", "garbage"], "the Date header of each reply"] = "right"
    date_off: Annotated[float, "seconds by which each Date is ahead of the market's clock"] = 0.0
    ct: Annotated[
        Literal["seconds", "milliseconds", "text", "null", "negative"], "how my_orders tells when an order began"
    ] = "seconds"
    ct_off: Annotated[float, "seconds by which that time is ahead of the truth"] = 0.0
    latency: Annotated[float, "real seconds each reply takes"] = 0.0
    visible_after: Annotated[float, "market seconds until a new order shows in my_orders"] = 2.0
    endpoints_after: Annotated[float, "market seconds until host and ports are filled in"] = 8.0
    deploy_after: Annotated[float, "market seconds until mon_container is 2"] = 60.0
    ssh_after: Annotated[float, "market seconds from deployed until port 22 answers"] = 5.0
    ssh_listener: Annotated[bool, "really listen on a loopback port for each order's SSH"] = True
    ssh_host: Annotated[str, "the host shown for those listeners"] = "127.0.0.1"

    # Money
    fee_on_demand: Annotated[float, "renter's fee on on-demand orders, percent"] = 5.0
    fee_spot: Annotated[float, "renter's fee on spot orders, percent"] = 1.25
    creation_fee_usd: Annotated[float, "creation fee in USD, or its worth in another coin"] = 0.1
    creation_fee_after: Annotated[float, "market seconds of running before that fee is taken"] = 600.0
    overrun_seconds: Annotated[int, "seconds billed past the end; one real order shows 58"] = 0
    on_empty: Annotated[Literal["end", "negative"], "what a drained wallet does to its orders"] = "end"

    # Orders
    required_price: Annotated[
        Literal["equal", "ceiling", "ignored", "code1"],
        "how a required_price that differs is judged; real rule unknown",
    ] = "equal"
    price_error: Annotated[str, "error text of that refusal; the real text is unknown"] = "price-changed"
    ampersand_creates: Annotated[bool, "an & in an env value answers code 1 although the order was made"] = True
    images: Annotated[
        tuple[str, ...],
        "what an image brings, as NAME=WORD,WORD: sshd, jupyter, cuda12.4, closed (Clore's SSH entrypoint doesn't work"
        " in it), private (it can't be fetched, so its order never deploys); repeatable",
    ] = ()
    newer_cuda: Annotated[
        Literal["never_deploys", "deploys"], "what an image for a newer CUDA than its host's does; real rule unknown"
    ] = "never_deploys"
    unknown_order: Annotated[
        Literal["error", "ok", "code2"], "reply to cancelling an order that is unknown, another's or over"
    ] = "error"
    unknown_order_error: Annotated[str, "error text for an order that does not exist"] = "order_dont_exist"
    bad_input_status: Annotated[int, "HTTP status of code 2; the real one is unknown"] = 400
    repeat_rows: Annotated[bool, "my_orders and wallets list every row twice"] = False

    # Spot
    outbid: Annotated[Literal["stays", "vanishes"], "what happens to an order that loses its server"] = "stays"
    max_step_percent: Annotated[float, "largest lowering of a bid in one step, percent of the bid"] = 10.0
    lowering_every: Annotated[float, "market seconds between two lowerings of a bid"] = 600.0

    # Limits and faults
    rate_limit: Annotated[
        Literal["arrival", "completion", "off"], "what the interval counts from; which one is real is unknown"
    ] = "arrival"
    interval: Annotated[float, "real seconds between two calls of a key"] = 1.0
    create_interval: Annotated[float, "real seconds between two create_order calls of a key"] = 5.0
    retry_after: Annotated[bool, "send Retry-After with a 429"] = False
    faults: Annotated[tuple[str, ...], "ENDPOINT:KIND[:TIMES[:SECONDS]], armed from the start; repeatable"] = ()

    def rates(self) -> dict[str, float]:
        """Return what one unit of each coin is worth in USD."""
        return {"bitcoin": self.btc_usd, "CLORE-Blockchain": self.clore_usd, "USD-Blockchain": 1.0}

    def creation_fee(self, coin: str) -> float:
        return float(f"{self.creation_fee_usd / self.rates()[coin]:.8f}")


class Live:
    """The current options, shared by all parts of a running sandbox."""

    def __init__(self, options: Options) -> None:
        self.options = options


def changed(options: Options, changes: Mapping[str, Any]) -> Options:
    """Return the options with some replaced. Raises ValueError for an unknown option or a value of the wrong type."""
    kinds = get_type_hints(Options)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()
    }
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"no option is called {name!r}")
        try:
            TypeAdapter(kinds[name]).validate_python(value, strict=True)
            fits = name != "images" or all(map(_IMAGE.fullmatch, value))
        except ValidationError:
            fits = False
        if not fits:
            raise ValueError(f"option {name} does not take {changes[name]!r}")
    return replace(options, **values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each option. `from_args` reads them back."""
    single = {"keys": "--key", "faults": "--fault", "images": "--image"}
    for name, hint in get_type_hints(Options, include_extras=True).items():
        kind, text = get_args(hint)
        default = getattr(Options(), name)
        how: dict[str, Any] = {"metavar": "X", "type": kind}
        if kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif get_origin(kind) is Literal:
            how = {"choices": get_args(kind)}
        elif get_origin(kind) is tuple:
            how = {"metavar": "X", "type": get_args(kind)[0], "action": "append"}
        text = f"{text} ({default})".replace("%", "%%") if default != () else text
        flag = single.get(name, "--" + name.replace("_", "-"))
        parser.add_argument(flag, dest=name, default=None, help=text, **how)


def from_args(namespace: argparse.Namespace) -> Options:
    """Return the options that a command line gave. Options not given keep their defaults."""
    given = {f.name: getattr(namespace, f.name, None) for f in fields(Options)}
    return changed(Options(), {name: value for name, value in given.items() if value is not None})
