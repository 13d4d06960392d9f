"""What the steps draw, and the steps by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from tests.machine.clients import ROLES
from tests.machine.halts import Halt
from tests.machine.market import BTC, CLORE, USD, Json
from tests.machine.stage import IMAGES

BUSY: Final = (
    "create_order",
    "my_orders",
    "my_orders",
    "cancel_order",
    "set_spot_price",
    "wallets",
    "marketplace",
    "*",
)

numbers = st.integers(0, 99)
roles = st.integers(0, len(ROLES) - 1)
which_server = st.integers(0, 5)
coins = st.sampled_from([USD, USD, USD, CLORE, BTC, None])
lengths = st.sampled_from([0.5, 1, 2, 5, 9.25])
answers = st.sampled_from(["yes"] * 8 + ["later", "later", "no", "decline", "cancel", "empty", "word", "error"])
skips = st.sampled_from([2, 2, 1, 3, 4, 5])  # 2 is between the claim and the bytes
strangers = st.sampled_from(["someone/else", "someone/else", *IMAGES])  # the images of strangers' orders
halts = st.one_of(
    st.none(),
    st.none(),
    st.builds(Halt, anchor=st.sampled_from(["call", "asked"]), skip=st.integers(0, 20), kill=st.booleans()),
    st.builds(Halt, anchor=st.just("spend"), skip=st.integers(0, 8), kill=st.booleans()),
)


def wishes_of(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Return a strategy for what a caller may want to rent. `fixed` narrows it."""
    wide: dict[str, st.SearchStrategy[Any]] = {
        "server": which_server,
        "others": st.lists(st.integers(1, 5), max_size=2, unique=True),
        "hours": lengths,
        "kind": st.sampled_from(["on-demand", "on-demand", "spot"]),
        "coin": coins,
        "image": st.sampled_from(IMAGES),
    }
    return st.fixed_dictionaries({**wide, **fixed})


wishes = wishes_of()

Step = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of step: how often it comes, what it does, what it draws."""

    weight: int
    do: Step
    arguments: Mapping[str, st.SearchStrategy[Any]]


STEPS: dict[str, Kind] = {}


def step(weight: int = 2, **arguments: st.SearchStrategy[Any]) -> Callable[[Step], Step]:
    """Register one kind of step. Steps are not hypothesis rules, because hypothesis leaves most rules out of most
    runs."""

    def keep(method: Step) -> Step:
        STEPS[method.__name__] = Kind(weight, method, arguments)
        return method

    return keep


def drawn() -> st.SearchStrategy[tuple[str, Json]]:
    """Return a strategy for any step with its arguments."""
    # "mend" comes first, because hypothesis tries the first one fifty times. If nothing is broken, it does not count as
    # a step.
    names = sorted((name for name, kind in STEPS.items() for _ in range(kind.weight)), key=lambda name: name != "mend")
    given = {name: st.fixed_dictionaries({**kind.arguments}) for name, kind in STEPS.items()}
    return st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), given[name]))
