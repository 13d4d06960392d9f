"""Reads GPU names, as hosts report and people type them, by the same rules into one canonical spelling.

A name is a handful of tokens ("rtx", "4070", "ti") and perhaps a memory size. wish.py reads what people ask for. A form
factor (SXM, PCIe, NVL) is part of the name of cards that are made in several.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clore_mcp.text import clean

NAME_LIMIT: Final = 60
MIXED: Final = "Mixed GPUs"
UNKNOWN: Final = "Unknown GPU"
_MAX_COUNT: Final = 999
_READINGS: Final = 4


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NOISE: Final = _words(
    "nvidia geforce amd gpu gpus card cards corporation generation edition with design oem hbm hbm2 hbm2e hbm3 hbm3e "
    "r tm gb gib vram memory a an any some all each the of workstation works edit ws wk"
)
_SYNONYMS: Final = {
    "mobile": "laptop", "notebook": "laptop", "s": "super", "m": "laptop", "ati": "radeon", "q": "quadro",
    "bw": "blackwell",
}  # fmt: skip
_FORMS: Final = {
    "sxm": "sxm", "sxm2": "sxm", "sxm3": "sxm", "sxm4": "sxm", "sxm5": "sxm", "sxm6": "sxm", "hgx": "sxm", "dgx": "sxm",
    "pcie": "pcie", "fhhl": "pcie", "nvl": "nvl",
}  # fmt: skip
_IN_SEVERAL_FORMS: Final = _words("p100 v100 a100 a800 h100 h800 h200 h20")
_SXM_IF_HBM: Final = _words("h100 h800")  # drivers call the SXM card "H100 80GB HBM3" and the others by their form
_SXM_UNLESS_SAID: Final = ("h200",)  # the driver's name of the SXM card
_SPELLING: Final = {"maxq": "Max-Q", "v2": "v2", "pcie": "PCIe"}
_CAPITALS: Final = _words("rtx gtx gt rx cmp titan super pro sxm nvl xt xtx gre sff vii")
_SIZED: Final = {"a100": (40, 80), "v100": (16, 32), "1060": (3, 6)}  # cards whose memory is part of the name
_WITH_SUPER: Final = _words("1650 1660 2060 2070 2080 4070 4080")  # any other "…s" is a plural
# Cards of several generations share these numbers and differ in memory: by number, then by GB.
LINES: Final = {
    "4000": {8: "Quadro RTX 4000", 20: "RTX 4000 Ada", 24: "RTX PRO 4000 Blackwell"},
    "4500": {24: "RTX 4500 Ada", 32: "RTX PRO 4500 Blackwell"},
    "5000": {16: "Quadro RTX 5000", 32: "RTX 5000 Ada", 48: "RTX PRO 5000 Blackwell"},
    "6000": {24: "Quadro RTX 6000", 48: "RTX 6000 Ada", 96: "RTX PRO 6000 Blackwell"},
}
# Letters of other scripts that look like Latin ones. They count as those in a word with a Latin letter or digit.
_LOOKALIKES: Final = str.maketrans("авекмнорстхіαβεηικμνορτχ", "abekmhopctxiabehikmvoptx")

_MARKS: Final = re.compile(r"\((r|tm|c)\)|[®™©]")
_WIRE_COUNT: Final = re.compile(r"^\s*(\d{1,3})\s*x\s+", re.IGNORECASE)
_MIXED_SCRIPT: Final = re.compile(r"\w*[a-z0-9]\w*")
_MINING: Final = re.compile(r"\bp(10[246]) ?(100|090|90)\b")
_MAX_Q: Final = re.compile(r"\bmax[- ]?q\b")
# Drivers that drop blanks: "a100sxm440gb", "h10080gbhbm3". A size right after the model only where that is clear.
_JOINED: Final = re.compile(
    r"\b([abhpv]\d00(?=\D|\d{2,3}gb)|[abhpv]\d{2})(\d{2,3}gb)?(sxm\d|pcie|nvl|fhhl|hbm\d?e?)?(\d{2,3}gb)?\b"
)
_BETWEEN: Final = re.compile(r"[^a-z0-9]+")
_SIZE_APART: Final = re.compile(r"\b(\d{1,3}) (?:gb|gib|g)\b")
_SIZE: Final = re.compile(r"(\d{1,3})g(?:i?b)?")
_FAMILY: Final = re.compile(r"(nvidia|geforce|radeon|quadro|tesla|titan|rtx|gtx|cmp|pro|gt|rx)(?=.*\d|xp|v$)(\w+)")
_NUMBER: Final = re.compile(r"(\d{3,4})(ti)?(super|s)?(laptop|mobile|xtx|xt|ada|d|m|rtx|gtx)?")
_DATA_CENTRE_PLURAL: Final = re.compile(r"([abhptv]\d{1,4})s")


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of a server: the canonical model, their number and, for a mix, the number of each."""

    model: str
    count: int
    mix: tuple[tuple[str, int], ...] = ()
    disputed: bool = False  # the list of GPUs and the text give different numbers; the smaller one counts


@dataclass(frozen=True, slots=True)
class Name:
    """A name as read: the words that distinguish models, and the memory in GB if it is named."""

    tokens: tuple[str, ...]
    memory: int | None


@functools.lru_cache(maxsize=4096)  # the names of a market repeat in the next one
def canonical(text: str, vram_gb: float | None = None) -> str:
    """Return the canonical spelling of a model: 'NVIDIA GeForce RTX 4090' is 'RTX 4090'. It reads as itself."""
    # Dropping a repeated word can bring two others together that mean one thing ("rtx p106 rtx 100"): read it again.
    for _ in range(_READINGS):
        spelled = _spell(text, vram_gb)
        if spelled == text:
            break
        text = spelled
    return text


def _spell(text: str, vram_gb: float | None) -> str:
    name = read(_WIRE_COUNT.sub("", clean(text, 2 * NAME_LIMIT), count=1))
    if "mixed" in name.tokens:
        return MIXED
    if name.tokens in ((), ("unknown",)):
        return UNKNOWN
    line = LINES.get(name.tokens[-1]) if len(name.tokens) == 2 and name.tokens[0] == "rtx" else None
    if line and vram_gb is not None:
        return line[min(line, key=lambda size: abs(size - vram_gb))]
    tokens = (*name.tokens, "sxm") if name.tokens == _SXM_UNLESS_SAID else name.tokens
    repeated = {token.partition("_")[0] for token in tokens if "_" in token}  # "p106" beside "p106_100"
    spelled = " ".join(_spelled(token) for token in tokens if token not in repeated)
    memory = _named_memory(name, vram_gb)
    return clean(f"{spelled} {memory}GB" if memory else spelled, NAME_LIMIT)


def of_server(text: str | None, array: Sequence[str] | None, vram_gb: float | None) -> Gpus:
    """Return the GPUs of a listing, from its list of GPUs or else from its text ('8x NVIDIA GeForce RTX 3090')."""
    said = _WIRE_COUNT.match(text or "")
    text_count = int(said[1]) if said else 0
    if not array:
        return Gpus(canonical(text or "", vram_gb), text_count or 1)
    names = Counter(canonical(raw, vram_gb) for raw in array[:_MAX_COUNT])
    listed = names.total()
    disputed = text_count not in (0, listed)
    count = min(listed, text_count or listed)
    if len(names) > 1:
        return Gpus(MIXED, count, tuple(sorted(names.items())), disputed)
    return Gpus(next(iter(names)), count, disputed=disputed)


def latin(text: str) -> str:
    """Return the text in lower case, with letters and digits of other scripts as ours that mean or look the same."""
    if text.isascii():
        return text.lower()
    same = unicodedata.normalize("NFKC", text).lower()
    digits = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in same)
    return _MIXED_SCRIPT.sub(lambda word: word[0].translate(_LOOKALIKES), digits)


@functools.lru_cache(maxsize=1024)  # the models of a market are read again for each query
def read(text: str) -> Name:
    """Return the name in a text, without words that distinguish no models."""
    line = _MAX_Q.sub("maxq", _MARKS.sub(" ", latin(text)))
    line = _SIZE_APART.sub(r"\1gb", _BETWEEN.sub(" ", line))
    line = _JOINED.sub(lambda found: " ".join(part for part in found.groups() if part), line)
    line = _MINING.sub(lambda found: f"p{found[1]} p{found[1]}_{found[2].zfill(3)}", line)  # "P106" finds both P106
    words = line.split()
    tokens: list[str] = []
    memory: int | None = None
    for word in words:
        if size := _SIZE.fullmatch(word):
            memory = int(size[1])
            continue
        if word not in _FORMS:
            tokens.extend(token for token in _split_word(word) if token not in tokens and token not in _NOISE)
    return Name((*_of_line(tokens), *_form(words, tokens)), memory)


def _form(words: Sequence[str], tokens: Sequence[str]) -> tuple[str, ...]:
    """Return the form factor, if it distinguishes cards."""
    if not _IN_SEVERAL_FORMS.intersection(tokens):
        return ("nvl",) if "nvl" in words else ()  # an NVL card is always a different card
    said = [_FORMS[word] for word in words if word in _FORMS]
    if not said and _SXM_IF_HBM.intersection(tokens) and any(word.startswith("hbm") for word in words):
        return ("sxm",)
    return ("nvl",) if "nvl" in said else tuple(said[:1])  # an NVL card is a PCIe card too


def _of_line(tokens: list[str]) -> list[str]:
    """Return the tokens, corrected for RTX PRO Blackwell cards: the "S" of a PRO 6000 means server."""
    if "blackwell" in tokens and "pro" not in tokens and LINES.keys() & tokens:
        tokens = ["rtx", "pro", *tokens[tokens[:1] == ["rtx"] :]]
    if "pro" in tokens and LINES.keys() & tokens:
        named = ["server" if word in ("super", "se") else word for word in tokens if word != "blackwell"]
        number = next(at for at, token in enumerate(named) if token in LINES)
        return list(dict.fromkeys([*named[: number + 1], "blackwell", *named[number + 1 :]]))
    return tokens


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


def _spelled(token: str) -> str:
    if "_" in token:
        return token.replace("_", "-").upper()
    if token in _SPELLING:
        return _SPELLING[token]
    return token.upper() if token in _CAPITALS or any(map(str.isdigit, token)) else token.capitalize()


def _named_memory(name: Name, vram_gb: float | None) -> int | None:
    sizes = next((_SIZED[token] for token in name.tokens if token in _SIZED), None)
    if sizes is None or name.memory is not None or vram_gb is None:
        return name.memory if sizes else None
    return min(sizes, key=lambda size: abs(size - vram_gb))
