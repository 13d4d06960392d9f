"""Writes the question that a person answers: everything that their yes would cost and start.

These are pure functions of frozen terms, so that every round shows the same words. Text from hosts or the model is
cleaned, clamped and quoted, because a CPU name must not argue for its own approval.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

from clore_mcp.clore import OrderRow
from clore_mcp.market.gpus import of_server
from clore_mcp.market.pricing import OrderType
from clore_mcp.money import Coin, dollars, plain
from clore_mcp.rental.containers import image_notes
from clore_mcp.rental.hosts import DAYS
from clore_mcp.rental.requests import CreateOrder, CreateWatch
from clore_mcp.rental.results import asked_usd, shown_parts
from clore_mcp.rental.terms import REPLACED_WITHIN_MINUTES, Candidate, Terms, cost_of
from clore_mcp.text import clean

_HOURS_SHOWN: Final = Decimal("0.0001")
_COMMAND_SHOWN: Final = 300
_ENV_NAMES_SHOWN: Final = 20
_IMAGE_SHOWN: Final = 256  # the whole name: an image must not hide behind a long and honest beginning
_QUOTE_MARKS: Final = str.maketrans(  # every character that looks like a closing quote
    dict.fromkeys('"“”„‟″‶＂ʺ˝˶❝❞❠〝〞〟״ײ〃ˮ⹂᳓🙶🙷🙸', "'")
)
_PRODUCT: Final = re.compile(
    r"[0-9]{1,3}x ((RTX|GTX|GT|CMP|Quadro|Tesla|Titan|Radeon|RX) )*[A-Z]{0,4}-?[0-9]{2,5}[A-Z]{0,2}(-[0-9]{3})?"
    r"( (Ti|SUPER|Laptop|Ada|NVL|XT|XTX|D|[0-9]{1,3}GB))*\Z"
)
NOT_MADE_HERE: Final = "It was not made here: someone else may be using it."
_LINE_END: Final = " ⏎ "  # shows where a line of a script ends, and so where a comment ends


@dataclass(frozen=True, slots=True)
class KeyShown:
    """The SSH key that would get access: its fingerprint, and whether it is the configured one."""

    fingerprint: str
    configured: bool


def quoted(text: str, limit: int) -> str:
    """Return someone else's words as data: cleaned, clamped and in quotes that they can't close."""
    return '"' + clean(text, limit).translate(_QUOTE_MARKS) + '"'


def rent_question(quote_id: str, request: CreateOrder, terms: Terms, key: KeyShown) -> str:
    """Return the question before a rental."""
    first = terms.candidates[0]
    gpus, (usd, at_most) = _gpus(first), asked_usd(terms)
    lines = [
        f"Rent {gpus} for {hours_text(terms.hours)}, {'at most ' if at_most else ''}{dollars(usd)} in total?",
        f"Server {first.server_id}: {gpus}, {first.country}, reliability {plain(first.reliability)},"
        f" CPU {quoted(first.cpu, 40)}",
        *([f"Its host FAILED here {first.failed_here} times in the last {DAYS} days."] if first.failed_here else []),
        _price_line(first, terms),
        _end_of(terms),
        *_spot_lines(terms),
        *run_lines(request, key, [(one.server_id, one.cuda) for one in terms.candidates]),
        *[_fallback_line(first, other) for other in terms.candidates[1:]],
    ]
    if terms.lost_usd:
        lines.append(
            f"If a server can't be reached by SSH within {REPLACED_WITHIN_MINUTES} minutes, it may be cancelled and the"
            " next of these rented instead, once, for the same hours. Its cost until then, at most"
            f" {dollars(terms.lost_usd)}, is lost."
        )
    return "\n".join([*lines, f"Quote {quote_id}. Nothing is spent without a yes."])


def end_line(on_end: str, enforced_by: str | None, *, when: str, cancelled: str, worst: str, unended: str) -> str:
    """Return what happens at the end, and the worst case: `worst` if a process ends the order, else `unended`."""
    if on_end == "notify":
        return (
            f"End: {when} clore-mcp notifies your assistant but cancels nothing."
            f" Worst case if no one cancels: {unended}"
        )
    if enforced_by is None:
        return f"End: NOTHING ends it {when} unless someone cancels. Worst case: {unended}"
    return f"End: {cancelled} {when} by {enforced_by}. Worst case then: {worst}; if no one cancels: {unended}"


def cancel_question(
    quote_id: str,
    order_id: int,
    what: str,
    usd_per_hour: Decimal | None,
    *,
    made_here: bool | None,
    spent_usd: Decimal | None,
) -> str:
    """Return the question before an order is cancelled. Unknown facts are None, because a cancel waits for no price."""
    known = [
        hardware(what) if what else "hardware unknown",
        "price unknown" if usd_per_hour is None else f"{dollars(usd_per_hour)} per hour",
        *([] if spent_usd is None else [f"{dollars(spent_usd)} spent so far"]),
    ]
    whose = {
        True: "",
        False: f"\n{NOT_MADE_HERE}",
        None: "\nThe record can't be read. It may have been made elsewhere, and someone else may be using it.",
    }[made_here]
    return (
        f"Cancel order {order_id} ({', '.join(known)})?\n"
        f"Its container and all data in it are deleted, and billing stops.{whose}\n"
        f"Quote {quote_id}. Without a yes it keeps running and billing."
    )


def _price_line(first: Candidate, terms: Terms) -> str:
    kind = "bid" if terms.order_type == "spot" else "listed"
    native = f"{plain(first.listed_per_day)} {first.coin.ticker} per day {kind}"
    room = "" if first.coin is Coin.USD else f" and 3 % for changes in the {first.coin.ticker} rate"
    rent, fee, creation = map(dollars, shown_parts(cost_of(first, terms.hours)))
    fees = " (Clore did not give its fees, so the highest documented ones are used)" if terms.fees_assumed else ""
    return (
        f"Price: {rent} rent + {fee} fee + {creation} creation fee after ten minutes ({native}){fees};"
        f" at most {dollars(first.ceiling_usd_per_hour)} per hour including fees{room}"
    )


def _end_of(terms: Terms) -> str:
    longest = max(terms.candidates, key=lambda one: one.unended_usd)
    most = max(terms.bills(lambda one: one.unended_usd))
    unended = f"{dollars(most)} over {hours_text(longest.max_rental_hours)}"
    if terms.order_type is OrderType.SPOT:
        unended += ", and no limit of the host ends it sooner"
    return end_line(
        terms.on_end,
        terms.enforced_by,
        when=f"after {hours_text(terms.hours)}",
        cancelled="cancelled",
        worst=dollars(terms.worst_usd),
        unended=unended,
    )


def would_not_win(to_win_usd: Decimal) -> str:
    """Return the sentence about a bid that another one beats. `to_win_usd` is what would win, in USD per hour."""
    return f"The bid would NOT win now; {dollars(to_win_usd)} per hour would. Until it wins, it costs nothing."


def not_below_on_demand(usd_per_hour: Decimal) -> str:
    """Return the sentence about a bid that is as high as the on-demand price or higher."""
    return f"The bid is NOT below the on-demand price of {dollars(usd_per_hour)} per hour, which no one can outbid."


def _spot_lines(terms: Terms) -> Iterable[str]:
    if terms.order_type is OrderType.SPOT:
        dear = terms.candidates[0].dear_on_demand_usd
        if dear is not None:
            yield not_below_on_demand(dear)
        short = "" if terms.to_win_usd is None else f" {would_not_win(terms.to_win_usd)}"
        yield (
            "Spot: the hours start with the order and run even while it waits or is outbid. You pay only while it wins."
            f"{short}"
        )


def run_lines(
    request: CreateOrder | CreateWatch, key: KeyShown, hosts: Sequence[tuple[int, str]] = ()
) -> Iterable[str]:
    """Yield the lines about what would run and whose key would get access. `hosts` holds each server's id and CUDA."""
    ports = ", ".join(f"{port}/{kind}" for port, kind in request.wire_ports.items())
    yield f"Runs: image {quoted(request.image, _IMAGE_SHOWN)}, ports {ports}{', Jupyter' if request.jupyter else ''}"
    yield from image_notes(request.image, jupyter=request.jupyter, hosts=hosts)
    if request.command:
        script = request.command.replace("\n", _LINE_END)
        cut = f" (the start of {len(request.command):,} characters)" if len(script) > _COMMAND_SHOWN else ""
        yield f"Command{cut}: {quoted(script, _COMMAND_SHOWN)}"
    if request.env:
        names = list(request.env)
        more = f" and {len(names) - _ENV_NAMES_SHOWN} more" if len(names) > _ENV_NAMES_SHOWN else ""
        yield f"Environment: {', '.join(clean(name, 40) for name in names[:_ENV_NAMES_SHOWN])}{more} (values not shown)"
    yield f"SSH key: {key.fingerprint}{'' if key.configured else ' - NOT your configured key'}"


def _fallback_line(first: Candidate, other: Candidate) -> str:
    paid = "" if other.coin is first.coin else f", paid in {other.coin.ticker}"
    dear = other.dear_on_demand_usd
    beside = "" if dear is None else f", NOT below its on-demand price of {dollars(dear)}"
    return (
        f"If it is gone, server {other.server_id}: {_gpus(other)}, {other.country},"
        f" at most {dollars(other.ceiling_usd_per_hour)} per hour{paid}{beside}"
    )


def _gpus(candidate: Candidate) -> str:
    return hardware(f"{candidate.gpu_count}x {candidate.gpu}")


def hardware(text: str) -> str:
    """Return '2x RTX 4090' unchanged, and any text that is not a product name in quotes."""
    return text if _PRODUCT.match(text) else quoted(text, 60)


def hours_text(hours: Decimal) -> str:
    """Return the hours as '2.5 hours'."""
    told = plain(hours.quantize(_HOURS_SHOWN, ROUND_CEILING))
    return "1 hour" if told == "1" else f"{told} hours"


def hardware_of(row: OrderRow | None) -> str:
    """Return an order's hardware, as in '1x RTX 4090', or "" without a row."""
    if row is None:
        return ""
    cards = of_server(row.gpu, tuple(row.gpu_array or ()), None)
    return f"{cards.count}x {cards.model}"
