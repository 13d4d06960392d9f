"""GPU names: what hosts report and what people type, read by the same rules into one canonical spelling.

A name is a handful of tokens ("rtx", "4070", "ti") and perhaps a memory size. A query means every model that has all
of its tokens, unless the model has a token that makes it another card: a "4070" is no 4070 Ti, a "3080" no laptop's.
Form factors (SXM, PCIe) are dropped on both sides, for hosts report them unevenly.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from clore_mcp.text import clean

NAME_LIMIT: Final = 60
MIXED: Final = "Mixed GPUs"
UNKNOWN: Final = "Unknown GPU"
_MAX_COUNT: Final = 999
_NEAREST: Final = 5
_READINGS: Final = 4
_CUTOFF: Final = 0.4  # difflib ratio; below it a "nearest" name is noise


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NOISE: Final = _words(
    "nvidia geforce amd gpu gpus card cards corporation generation edition with design oem pcie hbm hbm2 hbm2e hbm3 "
    "hbm3e sxm sxm2 sxm3 sxm4 sxm5 sxm6 fhhl r tm gb gib vram memory a an any some workstation works edit"
)
_OTHER_CARD: Final = _words("ti super laptop d v2 pro maxq server xt xtx gre sff")  # these make it another card
_SYNONYMS: Final = {"mobile": "laptop", "notebook": "laptop", "s": "super", "m": "laptop", "ati": "radeon"}
_SPELLING: Final = {
    "ti": "Ti",
    "laptop": "Laptop",
    "quadro": "Quadro",
    "tesla": "Tesla",
    "radeon": "Radeon",
    "xp": "Xp",
    "maxq": "Max-Q",
    "ada": "Ada",
    "v2": "v2",
    "vii": "VII",
}
_CAPITALS: Final = _words("rtx gtx gt rx cmp titan super pro nvl xt xtx gre sff d v x z")
_SIZED: Final = {"a100": (40, 80), "v100": (16, 32), "1060": (3, 6)}  # cards whose memory is part of the name
_WITH_SUPER: Final = _words("1650 1660 2060 2070 2080 4070 4080")  # any other "…s" is a plural

_MARKS: Final = re.compile(r"\((r|tm|c)\)|[®™©]")
_WIRE_COUNT: Final = re.compile(r"^\s*(\d{1,3})\s*x\s+", re.IGNORECASE)
_LEADING_COUNT: Final = re.compile(r"\s*(\d{1,2})\s*[x×*]\s*(?=\w)", re.IGNORECASE)
_TRAILING_COUNT: Final = re.compile(r"(?<=[\w\s])[x×*]\s*(\d{1,2})\s*$", re.IGNORECASE)
_MINING: Final = re.compile(r"\bp(10[246]) ?(100|090|90)\b")
_MAX_Q: Final = re.compile(r"\bmax[- ]?q\b")
# Drivers that lose the blanks: "a100sxm440gb", "h10080gbhbm3". A size right after the model only where that is clear.
_JOINED: Final = re.compile(
    r"\b([abhpv]\d00(?=\D|\d{2,3}gb)|[abhpv]\d{2})(\d{2,3}gb)?(sxm\d|pcie|nvl|fhhl|hbm\d?e?)?(\d{2,3}gb)?\b"
)
_BETWEEN: Final = re.compile(r"[^a-z0-9]+")
_SIZE_APART: Final = re.compile(r"\b(\d{1,3}) (?:gb|gib|g)\b")
_SIZE: Final = re.compile(r"(\d{1,3})g(?:i?b)?")
_FAMILY: Final = re.compile(r"(nvidia|geforce|radeon|quadro|tesla|titan|rtx|gtx|cmp|gt|rx)(?=.*\d|xp|v$)(\w+)")
_NUMBER: Final = re.compile(r"(\d{3,4})(ti)?(super|s)?(laptop|mobile|xtx|xt|d|m)?")
_DATA_CENTRE_PLURAL: Final = re.compile(r"([abhpv]\d{2,4})s")


@dataclass(frozen=True, slots=True)
class Gpus:
    """What a server has: the canonical model, how many, and for a mix which."""

    model: str
    count: int
    mix: tuple[tuple[str, int], ...] = ()
    disputed: bool = False  # the list of GPUs and the text name different numbers; the smaller one counts


@dataclass(frozen=True, slots=True)
class Match:
    """The present models that a query means, and what else it asked for in passing."""

    models: frozenset[str]
    min_count: int | None = None
    vram_gb: int | None = None  # to be checked against the server where the name does not settle it


@dataclass(frozen=True, slots=True)
class Unknown:
    """A query that no present model answers, with the nearest real names."""

    query: str
    nearest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    tokens: tuple[str, ...]
    memory: int | None

    @property
    def compact(self) -> str:
        return "".join(self.tokens)


def canonical(text: str, vram_gb: float | None = None) -> str:
    """The one spelling of a model, whoever wrote it: 'NVIDIA GeForce RTX 4090' is 'RTX 4090'.

    A spelling is final: read again, it stays. Dropping a repeated word can bring two others together that mean one
    thing ("rtx p106 rtx 100"), so it is read until it does.
    """
    for _ in range(_READINGS):
        spelled = _spell(text, vram_gb)
        if spelled == text:
            break
        text = spelled
    return text


def _spell(text: str, vram_gb: float | None) -> str:
    name = _read(_WIRE_COUNT.sub("", clean(text, 2 * NAME_LIMIT), count=1))
    if "mixed" in name.tokens:
        return MIXED
    if name.tokens in ((), ("unknown",)):
        return UNKNOWN
    spelled = " ".join(_spelled(token) for token in name.tokens if not _begins_another(token, name.tokens))
    memory = _named_memory(name, vram_gb)
    return clean(f"{spelled} {memory}GB" if memory else spelled, NAME_LIMIT)


def of_server(text: str | None, array: Sequence[str] | None, vram_gb: float | None) -> Gpus:
    """The GPUs of a listing, from its list of GPUs, else from its text ('8x NVIDIA GeForce RTX 3090')."""
    said = _WIRE_COUNT.match(text or "")
    text_count = int(said[1]) if said else None
    if not array:
        return Gpus(canonical(text or "", vram_gb), max(1, text_count or 1))
    spelled = {raw: canonical(raw, vram_gb) for raw in set(array[:_MAX_COUNT])}
    names = Counter(spelled[raw] for raw in array[:_MAX_COUNT])
    listed = names.total()
    disputed = bool(text_count) and text_count != listed
    count = min(listed, text_count) if text_count else listed
    if len(names) > 1:
        return Gpus(MIXED, count, tuple(sorted(names.items())), disputed)
    return Gpus(next(iter(names)), count, disputed=disputed)


def resolve(query: str, present: Iterable[str]) -> Match | Unknown:
    """Which of the models now on the market a person means by `query`."""
    wanted, count = _split_count(clean(query, NAME_LIMIT))
    name = _read(wanted)
    models = {model: _read(model) for model in present}
    matching = frozenset(model for model, have in models.items() if _means(name, have))
    if not matching:
        return Unknown(clean(query, NAME_LIMIT), _nearest(name, models))
    settled = all(models[model].memory == name.memory for model in matching)
    return Match(matching, count, None if settled else name.memory)


def _split_count(text: str) -> tuple[str, int | None]:
    for pattern in (_LEADING_COUNT, _TRAILING_COUNT):
        if (found := pattern.search(text)) and (pattern is _TRAILING_COUNT or found.start() == 0):
            rest = text[: found.start()] + text[found.end() :]
            if rest.strip() and int(found[1]):
                return rest, int(found[1])
    return text, None


@functools.lru_cache(maxsize=1024)  # the models of a market, read again for each query
def _read(text: str) -> _Name:
    line = _MAX_Q.sub("maxq", _MARKS.sub(" ", text.lower()))
    line = _SIZE_APART.sub(r"\1gb", _BETWEEN.sub(" ", line))
    line = _JOINED.sub(lambda found: " ".join(part for part in found.groups() if part), line)
    line = _MINING.sub(lambda found: f"p{found[1]} p{found[1]}_{found[2].zfill(3)}", line)  # "P106" finds both P106
    tokens: list[str] = []
    memory: int | None = None
    for word in line.split():
        if size := _SIZE.fullmatch(word):
            memory = int(size[1])
            continue
        tokens.extend(token for token in _split_word(word) if token not in tokens and token not in _NOISE)
    return _Name(tuple(tokens), memory)


def _split_word(word: str) -> list[str]:
    if family := _FAMILY.fullmatch(word):
        return [family[1], *_split_word(family[2])]
    if number := _NUMBER.fullmatch(word):
        digits, ti, extra, kind = number.groups()
        if extra == "s" and not ti and digits not in _WITH_SUPER:
            extra = None
        parts = (digits, ti, extra and "super", kind and _SYNONYMS.get(kind, kind))
        return [part for part in parts if part]
    if word in ("tis", "tisuper"):
        return ["ti", "super"]
    if plural := _DATA_CENTRE_PLURAL.fullmatch(word):
        return [plural[1]]
    return [_SYNONYMS.get(word, word)]


def _begins_another(token: str, tokens: Sequence[str]) -> bool:
    return any(other.startswith(f"{token}_") for other in tokens)


def _spelled(token: str) -> str:
    if "_" in token:
        return token.replace("_", "-").upper()
    if token in _SPELLING:
        return _SPELLING[token]
    return token.upper() if token in _CAPITALS or any(map(str.isdigit, token)) else token.capitalize()


def _named_memory(name: _Name, vram_gb: float | None) -> int | None:
    sizes = next((_SIZED[token] for token in name.tokens if token in _SIZED), None)
    if sizes is None or name.memory is not None or vram_gb is None:
        return name.memory if sizes else None
    return min(sizes, key=lambda size: abs(size - vram_gb))


def _means(wanted: _Name, have: _Name) -> bool:
    if not set(wanted.tokens) <= set(have.tokens):
        return False
    if wanted.memory and have.memory and wanted.memory != have.memory:
        return False
    is_model = any(char.isdigit() for token in wanted.tokens for char in token)
    return not is_model or not (set(have.tokens) - set(wanted.tokens)) & _OTHER_CARD


def _nearest(wanted: _Name, models: dict[str, _Name]) -> tuple[str, ...]:
    numbers = {token for token in wanted.tokens if any(map(str.isdigit, token))}
    scored = []
    for model, have in models.items():
        likeness = difflib.SequenceMatcher(None, wanted.compact, have.compact).ratio()
        same_number = bool(numbers & set(have.tokens))
        if same_number or likeness >= _CUTOFF:
            scored.append((not same_number, -likeness, model))
    return tuple(model for _, _, model in sorted(scored)[:_NEAREST])
