"""What a container does once it is started from an image: whether it can start, and what answers in it.

An unknown image has neither sshd nor Jupyter, and its CUDA version is unknown. `Options.images` adds others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .intake import OrderWish
from .options import Options

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in an image. `closed`: Clore's SSH entrypoint doesn't work in it. `private`: it can't be pulled."""

    sshd: bool
    jupyter: bool
    closed: bool
    private: bool
    cuda: Version | None


@dataclass(frozen=True, slots=True)
class ContainerState:
    """An order's container: whether it starts, and what answers in it."""

    starts: bool
    sshd: bool
    jupyter: bool


_WORDS = {
    "cloreai/jupyter:ubuntu24.04-v2": "sshd,jupyter",
    "cloreai/jupyter:ubuntu24.04-v1": "sshd,jupyter",
    "cloreai/ubuntu22.04-jupyter": "sshd,jupyter",
    "cloreai/ubuntu20.04-jupyter": "sshd,jupyter",
    "cloreai/torch:2.0.1": "sshd",
    "nvidia/cuda:12.8.0-base-ubuntu22.04": "cuda12.8",
    "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime": "cuda12.4",
    "yanwk/comfyui-boot:cu126-slim": "cuda12.6",
}


def inside(ask: OrderWish, row: Mapping[str, Any], options: Options) -> ContainerState:
    """Return what the container that `ask` requests does on the server with that row."""
    found = contents(ask.image, options)
    host = _version(row.get("cuda_version"))
    too_new = found.cuda is not None and host is not None and found.cuda > host[:2]
    return ContainerState(
        starts=not found.private and not (too_new and options.newer_cuda == "never_deploys"),
        sshd=found.sshd or (bool(ask.autossh_entrypoint) and not found.closed),
        jupyter=found.jupyter and bool(ask.jupyter_token) and (ask.ports or {}).get("8888") == "http",
    )


def contents(image: str, options: Options) -> Contents:
    """Return what is in an image, from the options or else from the table."""
    known = _WORDS | {name: words for name, _, words in (one.rpartition("=") for one in options.images)}
    words = known.get(image.removeprefix("docker.io/"), "").split(",")
    cuda = next((_version(word.removeprefix("cuda")) for word in words if word.startswith("cuda")), None)
    return Contents("sshd" in words, "jupyter" in words, "closed" in words, "private" in words, cuda)


def _version(text: object) -> Version | None:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", text):
        return None
    return tuple(int(part) for part in text.split("."))
