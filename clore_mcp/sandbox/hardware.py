"""The simulated hosts' hardware and countries: tables for the catalogue, with rough market weights."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """A model as hosts report it. `vram` holds the sizes in GB that drivers round to, the most common first."""

    name: str
    vram: tuple[float, ...]
    usd_per_day: float
    weight: int
    counts: tuple[int, ...]
    cpu_class: str = "desktop"


_RIG = (1, 2, 4, 4, 5, 6, 6, 7, 8, 8, 8, 10, 12)
_DESK = (1, 1, 1, 1, 2, 2, 4, 4, 6, 8)
_RACK = (1, 1, 2, 4, 8, 8)

GPUS = (
    Gpu("NVIDIA GeForce RTX 5090", (31, 32, 31.84), 11.5, 60, _DESK),
    Gpu("NVIDIA GeForce RTX 5080", (16, 15.92), 6.0, 25, _DESK),
    Gpu("NVIDIA GeForce RTX 5070 Ti", (16, 15.92), 4.6, 25, _DESK),
    Gpu("NVIDIA GeForce RTX 4090", (24, 24, 23.99, 23), 8.2, 190, _DESK),
    Gpu("NVIDIA GeForce RTX 4080 SUPER", (16, 15.99), 4.9, 30, _DESK),
    Gpu("NVIDIA GeForce RTX 4080", (16, 15.99), 4.6, 25, _DESK),
    Gpu("NVIDIA GeForce RTX 4070 Ti", (12, 11.99), 3.3, 22, _DESK),
    Gpu("NVIDIA GeForce RTX 4070 SUPER", (12, 11.99), 2.9, 25, _DESK),
    Gpu("NVIDIA GeForce RTX 4070", (12, 11.99), 2.5, 30, _DESK),
    Gpu("NVIDIA GeForce RTX 4060 Ti", (16, 8, 7.99), 2.0, 25, _DESK),
    Gpu("NVIDIA GeForce RTX 3090", (24, 24, 23.99), 3.6, 90, _DESK),
    Gpu("NVIDIA GeForce RTX 3080 Ti", (12, 11.99), 2.5, 40, _RIG, "miner"),
    Gpu("NVIDIA GeForce RTX 3080", (10, 12), 2.1, 75, _RIG, "miner"),
    Gpu("NVIDIA GeForce RTX 3070 Ti", (8,), 1.6, 30, _RIG, "miner"),
    Gpu("NVIDIA GeForce RTX 3070", (8, 7.99), 1.4, 55, _RIG, "miner"),
    Gpu("NVIDIA GeForce RTX 3060 Ti", (8,), 1.25, 70, _RIG, "miner"),
    Gpu("NVIDIA GeForce RTX 3060", (12, 11.99), 1.2, 40, _RIG, "miner"),
    Gpu("NVIDIA GeForce RTX 3070 Laptop GPU", (8,), 1.1, 40, _RIG, "miner"),
    Gpu("NVIDIA GeForce RTX 3060 Laptop GPU", (6,), 0.8, 15, _RIG, "miner"),
    Gpu("NVIDIA GeForce RTX 2060", (6, 12), 0.8, 12, _RIG, "miner"),
    Gpu("NVIDIA A100-SXM4-80GB", (80, 79.25), 25.0, 14, _RACK, "rack"),
    Gpu("NVIDIA A100SXM440GB", (40, 39.5), 16.0, 12, _RACK, "rack"),
    Gpu("NVIDIA H100 80GB HBM3", (80, 79.65), 46.0, 10, _RACK, "rack"),
    Gpu("NVIDIA L40S", (45, 44.99), 17.0, 10, _RACK, "rack"),
    Gpu("NVIDIA RTX A6000", (48, 47.99), 11.0, 18, _RACK, "rack"),
    Gpu("NVIDIA RTX A5000", (24, 23.99), 6.0, 15, _RACK, "rack"),
    Gpu("Tesla V100SXM216GB", (16,), 4.2, 14, _RACK, "rack"),
    Gpu("Tesla P40", (24, 22.5), 1.9, 12, _RACK, "rack"),
    Gpu("Tesla T4", (16, 15), 2.4, 10, _RACK, "rack"),
    Gpu("NVIDIA GeForce GTX 1080 Ti", (11,), 1.0, 22, _RIG, "miner"),
    Gpu("NVIDIA GeForce GTX 1070", (8,), 0.6, 15, _RIG, "miner"),
    Gpu("NVIDIA GeForce GTX 1660 SUPER", (6, 5.99), 0.5, 28, _RIG, "miner"),
    Gpu("NVIDIA GeForce GTX 1660 Ti", (6,), 0.5, 10, _RIG, "miner"),
    Gpu("NVIDIA CMP 90HX", (10,), 1.0, 14, _RIG, "miner"),
    Gpu("NVIDIA CMP 50HX", (10,), 0.7, 12, _RIG, "miner"),
    Gpu("NVIDIA P106100", (6,), 0.2, 14, _RIG, "miner"),
    Gpu("NVIDIA P104100", (4, 8), 0.3, 8, _RIG, "miner"),
    Gpu("Quadro P620", (2,), 0.25, 4, (1,)),
    Gpu("Mixed GPUs", (8, 6, 12), 1.4, 26, (2, 3, 4, 6, 6, 8), "miner"),
)

COUNTRIES = {
    "RU": 30, "US": 10, "UA": 8, "PL": 6, "DE": 6, "NL": 4, "SE": 5, "NO": 4, "FI": 3, "CZ": 3, "FR": 3, "GB": 3,
    "ES": 2, "PT": 1, "RO": 2, "BG": 2, "LT": 2, "EE": 1, "HU": 1, "IT": 2, "GR": 1, "BY": 3, "KZ": 2, "MD": 1,
    "AM": 1, "GE": 1, "KR": 5, "CN": 3, "HK": 2, "JP": 1, "VN": 1, "TH": 1, "IN": 1, "CA": 4, "BR": 1, "AU": 1,
    "TR": 1, "AE": 1, "ZA": 1, "RE": 1, "LI": 1,
}  # fmt: skip

EUROPE_FOR_4090 = ("DE", "NL", "PL", "SE", "FR", "FI", "CZ", "NO", "ES", "GB")

CPUS = {
    "miner": (
        ("Intel(R) Celeron(R) CPU G3930 @ 2.90GHz", "2/2"),
        ("Intel(R) Celeron(R) CPU G3900 @ 2.80GHz", "2/2"),
        ("Intel(R) Pentium(R) CPU G4400 @ 3.30GHz", "2/2"),
        ("Intel(R) Core(TM) i5-6500 CPU @ 3.20GHz", "4/4"),
        ("Intel(R) Celeron(R) CPU G1840 @ 2.80GHz", "2/2"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "14/28"),
    ),
    "desktop": (
        ("AMD Ryzen 9 7950X 16-Core Processor", "16/32"),
        ("AMD Ryzen 9 5900X 12-Core Processor", "12/24"),
        ("AMD Ryzen 7 5700X 8-Core Processor", "8/16"),
        ("12th Gen Intel(R) Core(TM) i5-12400F", "6/12"),
        ("Intel(R) Xeon(R) CPU E5-2699 v4 @ 2.20GHz", "44/88"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "28/56"),
        ("Intel(R) Core(TM) i7-10700K CPU @ 3.80GHz", "8/16"),
        ("Genuine Intel(R) CPU 0000 @ 2.10GHz", "8/16"),
    ),
    "rack": (
        ("AMD EPYC 7282 16-Core Processor", "32/64"),
        ("AMD EPYC 7742 64-Core Processor", "128/256"),
        ("AMD EPYC 9354 32-Core Processor", "64/128"),
        ("Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz", "40/80"),
        ("Intel(R) Xeon(R) Platinum 8480+", "112/224"),
    ),
}

BOARDS = {
    "miner": ("BTC B250", "B75BTC", "B85", "H110 Pro BTC", "H81 Pro BTC R2.0", "B250-FinTech-CF"),
    "desktop": ("X99", "PRIME Z270-P", "B450-A PRO MAX (MS-7B86)", "MPG B550 GAMING PLUS (MS-7C56)", "X99-Turbo "),
    "rack": ("H12SSL-i", "X11DPG-OT-CPU", "Z10PE-D16 WS-INS", "MZ32-AR0-00"),
}

RAM_GB = {"miner": (3.8352, 7.8288, 7.8525, 15.9048), "desktop": (15.9378, 31.9619, 64.1698, 128.0064),
          "rack": (128.8107, 257.6511, 503.5122, 1007.61)}  # fmt: skip

DISKS = (
    "KINGSTONx20SA400S37120G", "SPCCx20Solidx20Statex", "AMDx20R5SL128Gx20x20", "ADATAx20SP580x20x20x", "SSD 512GB",
    "Patriotx20P210x20128GB", "TOSHIBAx20MQ01ABD075x2", "Samsungx20SSDx20980x20", "2320", " WDCx20WDS240G2G0A",
    "MSATAx20128GBx20SSDx2",
)  # fmt: skip

MRL_HOURS = {72: 30, 1440: 14, 48: 11, 240: 8, 120: 6, 168: 7, 24: 5, 720: 6, 96: 3, 144: 2, 360: 2, 480: 1, 36: 1,
             272: 1, 3000: 1, 12: 1, 6: 1}  # fmt: skip

CUDA = {"12.2": 25, "12.4": 30, "12.0": 8, "11.7": 6, "12.8": 14, "13.0": 12, "13.3": 5}
