"""Known graphics cards, listed now or not: the memory sizes that each is sold with, and its class.

The class is a number: the approximate TFLOPS of 16-bit multiplications (on tensor cores if the card has them). It shows
which card could replace which, and is not a measurement. Names are spelled as gpus.py spells them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log2
from types import MappingProxyType
from typing import Final

_LESS_MEMORY: Final = 1.5  # work that needs the memory can't run in less, while more only costs more
_CARDS: Final = """
RTX 5090 32 420; RTX 5090 D 32 300; RTX 5090 D v2 24 300; RTX 5080 16 225; RTX 5070 Ti 16 176; RTX 5070 12 123
RTX 5060 Ti 16/8 95; RTX 5060 8 77; RTX 5050 8 53; RTX 5090 Laptop 24 175; RTX 5080 Laptop 16 130
RTX 4090 24 330; RTX 4090 D 24 295; RTX 4080 SUPER 16 208; RTX 4080 16 195; RTX 4070 Ti SUPER 16 176
RTX 4070 Ti 12 160; RTX 4070 SUPER 12 142; RTX 4070 12 117; RTX 4060 Ti 8/16 88; RTX 4060 8 60
RTX 4090 Laptop 16 160; RTX 4080 Laptop 12 115; RTX 4070 Laptop 8 80; RTX 4060 Laptop 8 58; RTX 4050 Laptop 6 45
RTX 3090 Ti 24 160; RTX 3090 24 142; RTX 3080 Ti 12 136; RTX 3080 10/12 119; RTX 3070 Ti 8 87; RTX 3070 8 81
RTX 3060 Ti 8 65; RTX 3060 12/8 51; RTX 3050 8/6 36; RTX 3080 Ti Laptop 16 95; RTX 3080 Laptop 8/16 80
RTX 3070 Ti Laptop 8 66; RTX 3070 Laptop 8 60; RTX 3060 Laptop 6 43; RTX 3050 Ti Laptop 4 29
RTX 2080 Ti 11 108; RTX 2080 SUPER 8 89; RTX 2080 8 81; RTX 2070 SUPER 8 72; RTX 2070 8 60; RTX 2060 SUPER 8 57
RTX 2060 6/12 52; GTX 1660 Ti 6 11; GTX 1660 SUPER 6 10; GTX 1660 6 10; GTX 1650 SUPER 4 9; GTX 1650 4 6
GTX 1080 Ti 11 11; GTX 1080 8 9; GTX 1070 Ti 8 8; GTX 1070 8 6.5; GTX 1060 6GB 6 4.4; GTX 1060 3GB 3 3.9
GTX 1050 Ti 4 2.1; GTX 1050 2 1.9; TITAN RTX 24 130; TITAN V 12 110; TITAN Xp 12 12; TITAN X 12 11
CMP 170HX 8 50; CMP 90HX 10 21; CMP 70HX 8 11; CMP 50HX 10 11; CMP 40HX 8 7; CMP 30HX 6 5
P102-100 5/10 11; P104-100 4/8 6.7; P106-100 6 4.4; P106-090 3 3.5; Quadro P620 2 1.4; Quadro P4000 8 5.3
Quadro P5000 16 8.9; Quadro P6000 24 12; Quadro GV100 32 118; Quadro RTX 4000 8 57; Quadro RTX 5000 16 89
Quadro RTX 6000 24 130; Quadro RTX 8000 48 130; RTX A2000 6/12 64; RTX A4000 16 77; RTX A4500 20 95
RTX A5000 24 111; RTX A5500 24 136; RTX A6000 48 155; RTX 2000 Ada 16 96; RTX 4000 Ada 20 107; RTX 4000 SFF Ada 20 77
RTX 4500 Ada 24 159; RTX 5000 Ada 32 261; RTX 5880 Ada 48 277; RTX 6000 Ada 48 364; RTX PRO 2000 Blackwell 16 70
RTX PRO 4000 Blackwell 24 188; RTX PRO 4500 Blackwell 32 220; RTX PRO 5000 Blackwell 48/72 294
RTX PRO 6000 Blackwell 96 500; RTX PRO 6000 Blackwell Max-Q 96 440; RTX PRO 6000 Blackwell Server 96 480
Tesla K80 12 4; Tesla M40 12/24 7; Tesla P4 8 5.5; Tesla P40 24 12; Tesla P100 SXM 16 21; Tesla P100 PCIe 16/12 19
Tesla V100 SXM 16GB 16 125; Tesla V100 SXM 32GB 32 125; Tesla V100 PCIe 16GB 16 112; Tesla V100 PCIe 32GB 32 112
Tesla T4 16 65; A2 16 18; A10 24 125; A10G 24 70; A16 16 18; A30 24 165; A40 48 150; A100 SXM 40GB 40 312
A100 SXM 80GB 80 312; A100 PCIe 40GB 40 312; A100 PCIe 80GB 80 312; A800 SXM 80 312; L4 24 121; L40 48 181
L40S 48 362; H100 SXM 80 990; H100 PCIe 80 756; H100 NVL 94 835; H800 SXM 80 990; H20 SXM 96 148; GH200 96 990
H200 SXM 141 990; H200 NVL 141 835; B200 180 2250; B300 288 2250
Radeon RX 9070 XT 16 195; Radeon RX 7900 XTX 24 123; Radeon RX 7900 XT 20 103; Radeon RX 7800 XT 16 74
Radeon RX 6900 XT 16 46; Radeon RX 6800 XT 16 41; Radeon RX 6800 16 32; Radeon RX 6700 XT 12 26
Radeon PRO VII 16 26; Radeon VII 16 27; Radeon RX 5700 XT 8 20; Radeon RX 580 8 6; Instinct MI300X 192 1307
Instinct MI250X 128 383; Instinct MI210 64 181; Instinct MI100 32 185
"""
_CARD: Final = re.compile(r"(?P<name>.+) (?P<sizes>[\d/]+) (?P<speed>[\d.]+)")


@dataclass(frozen=True, slots=True)
class Card:
    """A model's memory sizes in GB, commonest first, and its approximate speed."""

    vram_gb: tuple[int, ...]
    speed: float

    def distance(self, other: Card) -> float:
        """Return how far the other card is from replacing this one, in doublings of memory and speed. 0 is the same."""
        memory = log2(other.vram_gb[0] / self.vram_gb[0])
        return abs(memory) * (_LESS_MEMORY if memory < 0 else 1) + abs(log2(other.speed / self.speed))


def _cards() -> dict[str, Card]:
    found = {}
    for line in re.split(r"[;\n]", _CARDS.strip()):
        if read := _CARD.fullmatch(line.strip()):
            sizes = tuple(map(int, read["sizes"].split("/")))
            found[read["name"]] = Card(sizes, float(read["speed"]))
    return found


CARDS: Final = MappingProxyType(_cards())


def nearest(wanted: Iterable[str], others: Iterable[str]) -> Sequence[str]:
    """Return those of the other models that are known, the likeliest to replace one of the wanted models first."""
    cards = [CARDS[model] for model in wanted if model in CARDS]
    if not cards:
        return ()
    known = (model for model in others if model in CARDS)
    ranked = sorted((min(card.distance(CARDS[model]) for card in cards), model) for model in known)
    return tuple(model for _, model in ranked)
