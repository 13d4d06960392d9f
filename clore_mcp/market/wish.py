"""Reads which GPUs a person asks for, in their own words: "4090", "8 H100s", "a100-80gb:4", "4090 or 3090 Ti".

A query means every model that has all of its words, unless the model has another word that makes it a different card:
"4070" does not mean a 4070 Ti, and "3080" does not mean a laptop's. If a word fits no model, or no word is left, the
whole query is unknown, because a person who names a GPU does not mean any GPU.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market.cards import CARDS
from clore_mcp.market.gpus import LINES, MIXED, NAME_LIMIT, UNKNOWN, Name, latin, read
from clore_mcp.text import clean

_QUERY_LIMIT: Final = 120
_NEAREST: Final = 5
_CUTOFF: Final = 0.4  # difflib ratio; below it a "nearest" name is noise
_OTHER_CARD: Final = frozenset({"ti", "super", "laptop", "d", "v2", "pro", "maxq", "server", "xt", "xtx", "gre", "sff"})
_AMD: Final = frozenset({"radeon", "instinct", "rx", "firepro", "vega"})
_NOT_NVIDIA: Final = _AMD | {"intel", "arc", "mixed", "graphics", "unknown"}
_BRANDS: Final = {"amd": "amd", "nvidia": "nvidia", "geforce": "nvidia"}
_FORMS: Final = frozenset(("sxm", "pcie", "nvl"))

_NUMBERS: Final = {
    "single": 1, "one": 1, "two": 2, "dual": 2, "three": 3, "four": 4, "quad": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8,
}  # fmt: skip
_N: Final = rf"(\d{{1,2}}|{'|'.join(_NUMBERS)})"
_COUNTS: Final = (
    re.compile(rf"\b{_N}[\s-]*(?:x\s*)?(?:gpus?|cards?)\b"),  # 8 GPUs
    re.compile(rf"^[\s(\[{{]*{_N}(?:\s*[x×*][\s)\]]*|[\s)\]]+(?!(?:gb|gib|g)\b))(?=\w)"),  # 2x 4090, 8 H100s
    re.compile(r"(?<=[\d\s)\]])[\s(\[]*[x×*:]\s*(\d{1,2})[\s)\]}]*$"),  # 4090 x2, 4090:1
    re.compile(r"(?<=\w):\s*(\d{1,2})[\s)\]}]*$"),  # A100-80GB:4
    re.compile(r"(?<=\w)[\s(\[]+(\d{1,2})\s*[x×][\s)\]]*$"),  # 4090 2x
)
_OR: Final = re.compile(r"(\b(?:or|and|oder|und|ou|или|и)\b|[/|&]|[,;])")


@dataclass(frozen=True, slots=True)
class Match:
    """The models that a query means, listed now or not, and what else it asked for."""

    models: frozenset[str]
    count: int | None = None  # exactly this many GPUs
    sizes: Mapping[str, frozenset[int]] = field(default_factory=dict)  # GB, of models whose name leaves it open


@dataclass(frozen=True, slots=True)
class Unknown:
    """A query that means no model. `said` is the part of it that does not, or None if it names nothing at all."""

    query: str
    nearest: tuple[str, ...] = ()
    said: str | None = None


def resolve(query: str, present: Iterable[str]) -> Match | Unknown:
    """Return which models a person means by `query`, of those listed now and those known. Raises ArgumentInvalid if it
    may mean cards that have little in common, or names two numbers of GPUs."""
    shown, text = clean(query, NAME_LIMIT), latin(clean(query, _QUERY_LIMIT + 1))
    if len(text) > _QUERY_LIMIT:  # the part that was cut off could have named something
        return Unknown(shown, said=shown)
    models = {model: read(model) for model in (*CARDS, *present)}
    wishes = _wishes(text, shown)
    if not wishes:
        return Unknown(shown)
    sizes: dict[str, frozenset[int] | None] = {}
    for wish in wishes:
        matching = {model: have for model, have in models.items() if wish.means(have)}
        if not matching:
            return Unknown(shown, _spelled_like(wish.name, {model: models[model] for model in present}), wish.said)
        for model, have in matching.items():
            size = None if wish.name.memory in (None, have.memory) else frozenset({wish.name.memory or 0})
            before = sizes.get(model, frozenset())
            sizes[model] = None if size is None or before is None else before | size
    return Match(frozenset(sizes), _count(wishes), {model: size for model, size in sizes.items() if size})


@dataclass(frozen=True, slots=True)
class _Wish:
    """One of the alternatives in a query."""

    said: str
    name: Name
    brand: str | None
    count: int | None

    def means(self, have: Name) -> bool:
        """Return whether it means that model."""
        wanted = self.name
        if not set(wanted.tokens) <= set(have.tokens) or not _is_of(self.brand, have):
            return False
        if wanted.memory and have.memory and wanted.memory != have.memory:
            return False
        is_model = any(char.isdigit() for token in wanted.tokens for char in token)
        return not is_model or not (set(have.tokens) - set(wanted.tokens)) & _OTHER_CARD


def _wishes(text: str, shown: str) -> list[_Wish]:
    """Return the alternatives in a text. A part that names only a memory size or a form factor refers to the card
    before it."""
    found: list[_Wish] = []
    parts = ["or", *_OR.split(text)]
    for joined_by, part in zip(parts[::2], parts[1::2], strict=True):
        rest, count = _split_count(part)
        said, brand = clean(part, NAME_LIMIT), next((brand for word, brand in _BRANDS.items() if word in rest), None)
        name = read(rest)
        if not set(name.tokens) - _FORMS and not brand and found:
            before = found[-1].name
            again = read(" ".join((*(token for token in before.tokens if token not in _FORMS), rest)))
            if again.memory is not None or _FORMS & set(again.tokens):
                name = again
                if joined_by in ",;" and before.memory is None:
                    count = count or found.pop().count
        if name.tokens or name.memory is not None or brand:
            found.append(_Wish(said, _settled(name, shown), brand, count))
        elif count and found:  # "4090, 2 GPUs"
            found[-1] = replace(found[-1], count=_same(found[-1].count, count))
        elif re.search(r"\w", part):
            return []
    return found


def _settled(name: Name, shown: str) -> Name:
    """Return the name, with its generation if the memory decides between cards of the same number. Raises
    ArgumentInvalid if it does not."""
    numbers = [token for token in name.tokens if token in LINES]
    if not numbers or set(name.tokens) - {"rtx", *numbers}:
        return name
    line = LINES[numbers[0]]
    if name.memory in line:
        return Name(read(line[name.memory]).tokens, None)
    choices = [f"{model} ({size} GB)" for size, model in line.items()]
    raise ArgumentInvalid(
        f"gpu: '{shown}' may be {', '.join(choices[:-1])} or {choices[-1]}.",
        hint="Ask the person which one they mean, and give that name.",
    )


def _split_count(text: str) -> tuple[str, int | None]:
    """Return the text without a number of GPUs, and that number."""
    count: int | None = None
    for pattern in _COUNTS:
        found = pattern.search(text)
        if found and (number := _NUMBERS.get(found[1]) or int(found[1])):
            text, count = f"{text[: found.start()]} {text[found.end() :]}", _same(count, number)
    return text, count


def _count(wishes: Sequence[_Wish]) -> int | None:
    """Return the number of GPUs. One before the first alternative applies to all. Raises ArgumentInvalid if another one
    has a different number."""
    first, *others = wishes
    counts = {wish.count for wish in others} - {None, first.count}
    if not counts:
        return first.count
    raise _two_numbers()


def _same(before: int | None, count: int) -> int:
    if before not in (None, count):
        raise _two_numbers()
    return count


def _two_numbers() -> ArgumentInvalid:
    return ArgumentInvalid(
        "gpu: it names different numbers of GPUs.", hint="Name the models only, and give min_gpus and max_gpus."
    )


def _is_of(brand: str | None, have: Name) -> bool:
    if brand == "amd":
        return bool(_AMD & set(have.tokens))
    return brand is None or not _NOT_NVIDIA & set(have.tokens)


def _spelled_like(wanted: Name, models: Mapping[str, Name]) -> tuple[str, ...]:
    """Return the listed models whose names are most like an unknown one."""
    numbers = {token for token in wanted.tokens if any(map(str.isdigit, token))}
    scored = []
    for model, have in models.items():
        if model in (MIXED, UNKNOWN):
            continue
        likeness = difflib.SequenceMatcher(None, "".join(wanted.tokens), "".join(have.tokens)).ratio()
        same_number = bool(numbers & set(have.tokens))
        if same_number or likeness >= _CUTOFF:
            scored.append((not same_number, -likeness, model))
    return tuple(model for _, _, model in sorted(scored)[:_NEAREST])
