"""The images that have a short name, what each brings, and what any image means for SSH, Jupyter and CUDA.

What is claimed here is what public sources show; docs/images.md says how sure each line is. Of any other image only
what its own name says is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Basis = Literal["seen", "documented", "reported", "unproven"]
Cuda = tuple[int, int]

DEFAULT: Final = "jupyter"
JUPYTER_PORT: Final = "8888"


@dataclass(frozen=True, slots=True)
class KnownImage:
    """One image and what it brings. `basis` is how sure it is that SSH works in it on Clore."""

    image: str
    brings: str
    pytorch: str
    jupyter: bool
    own_sshd: bool
    basis: Basis

    @property
    def cuda(self) -> str:
        """The CUDA that its name says, or "not known"."""
        needed = cuda_of(self.image)
        return "not known" if needed is None else shown_cuda(needed)


SHORT_NAMES: Final[Mapping[str, KnownImage]] = MappingProxyType(
    {
        DEFAULT: KnownImage(
            "cloreai/jupyter:ubuntu24.04-v2",
            "Ubuntu 24.04 with sshd and Jupyter; the usual choice.",
            pytorch="not known", jupyter=True, own_sshd=True, basis="seen",
        ),
        "ubuntu": KnownImage(
            "cloreai/ubuntu22.04-jupyter",
            "Ubuntu 22.04 with sshd and Jupyter.",
            pytorch="not known", jupyter=True, own_sshd=True, basis="documented",
        ),
        "pytorch": KnownImage(
            "cloreai/torch:2.0.1",
            "PyTorch 2.0.1 with sshd; older than RTX 50 cards. Clore's template opens a web page on port 80.",
            pytorch="2.0.1", jupyter=False, own_sshd=True, basis="documented",
        ),
        "cuda": KnownImage(
            "nvidia/cuda:12.8.0-base-ubuntu22.04",
            "Ubuntu 22.04 with the CUDA 12.8 runtime, no compiler and no sshd of its own.",
            pytorch="none", jupyter=False, own_sshd=False, basis="reported",
        ),
        "vllm": KnownImage(
            "vllm/vllm-openai:v0.7.3",
            "vLLM 0.7.3 without sshd of its own. Start it with `command`, and open its port: {\"8000\":\"http\"}.",
            pytorch="yes, version not known", jupyter=False, own_sshd=False, basis="documented",
        ),
        "comfyui": KnownImage(
            "yanwk/comfyui-boot:cu126-slim",
            "ComfyUI for CUDA 12.6 without sshd of its own. Open its port: {\"8188\":\"http\"}.",
            pytorch="yes, version not known", jupyter=False, own_sshd=False, basis="unproven",
        ),
    }
)  # fmt: skip
"""What a person may write instead of a Docker name, in any case of letters."""

_UNNAMED: Final = (
    KnownImage(
        "cloreai/jupyter:ubuntu24.04-v1",
        "Ubuntu 24.04 with sshd and Jupyter; the version before.",
        pytorch="not known", jupyter=True, own_sshd=True, basis="documented",
    ),
    KnownImage(
        "cloreai/ubuntu20.04-jupyter",
        "Ubuntu 20.04 with sshd and Jupyter.",
        pytorch="not known", jupyter=True, own_sshd=True, basis="documented",
    ),
)  # fmt: skip
KNOWN: Final = (*SHORT_NAMES.values(), *_UNNAMED)

_DOCKER_HUB: Final = re.compile(r"(?:index\.|registry-1\.)?docker\.io/(?:library/)?")
_NVIDIA_CUDA: Final = re.compile(r"(?:.*/)?nvidia/cuda:([0-9]{1,2})\.([0-9]{1,2})(?![0-9])")
_NAMED_CUDA: Final = re.compile(r"(?<![a-z0-9])cuda[-_]?([0-9]{1,2})(?:\.([0-9]{1,2}))?(?![0-9])")
_SHORT_CUDA: Final = re.compile(r"(?<![a-z0-9])cu(1[0-9])([0-9])(?![0-9])")


def docker_name(text: str) -> str:
    """The Docker name that a short name stands for; any other text as it is."""
    known = SHORT_NAMES.get(text.lower())
    return text if known is None else known.image


def repository(image: str) -> str:
    """An image's name without Docker Hub's address, tag and digest."""
    name = image.partition("@")[0]
    hub = _DOCKER_HUB.match(name)
    name = name[hub.end() :] if hub else name
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


_WITH_SSHD: Final = frozenset(repository(one.image) for one in KNOWN if one.own_sshd)
_WITH_JUPYTER: Final = frozenset(repository(one.image) for one in KNOWN if one.jupyter)


def brings_sshd(image: str) -> bool:
    """Whether an image is known to start an SSH server by itself; Clore adds one to every other."""
    return repository(image) in _WITH_SSHD


def brings_jupyter(image: str) -> bool:
    """Whether an image is known to start Jupyter on port 8888."""
    return repository(image) in _WITH_JUPYTER


def cuda_of(image: str) -> Cuda | None:
    """The CUDA version that an image's name says it was built with, or None."""
    name = image.partition("@")[0].lower()
    found = (
        _NVIDIA_CUDA.match(name)
        or _NAMED_CUDA.search(name.rpartition("/")[2])
        or _SHORT_CUDA.search(name.rpartition("/")[2])
    )
    return (int(found[1]), int(found[2] or 0)) if found else None


def least_cuda(image: str, at_least: str | None = None) -> str | None:
    """The CUDA version that a host must take to run an image, `at_least` included; None where any may do."""
    from clore_mcp.market.listing import version  # the tools' schemas are listed without the market

    needed, named = cuda_of(image), version(at_least) if at_least else None
    if needed is None or (named is not None and named[:2] >= needed):
        return at_least
    return shown_cuda(needed)


def shown_cuda(cuda: Cuda) -> str:
    """'12.8'."""
    return f"{cuda[0]}.{cuda[1]}"


def image_notes(image: str, *, jupyter: bool, hosts: Sequence[tuple[int, str]] = ()) -> list[str]:
    """What a person should know of an image before they pay: one sentence or two each. `hosts` are the servers and the
    newest CUDA that each one's driver takes, as they are listed."""
    notes = []
    if not brings_sshd(image):
        notes.append(
            "SSH: the image is not known to bring it. Clore adds SSH at the start, which does not work in every image;"
            " the order bills either way. A private image can't be fetched, because no registry login is sent."
        )
    if "/" not in image and repository(image) == image:
        notes.append(
            f'Image: "{image}" is none of the short names ({", ".join(SHORT_NAMES)}), so it means the official image of'
            " that name on Docker Hub."
        )
    if jupyter and not brings_jupyter(image):
        notes.append("Jupyter: it is not known to be in the image; without it the address stays empty.")
    needed = cuda_of(image)
    older = [] if needed is None else [(one, cuda) for one, cuda in hosts if _is_older(cuda, needed)]
    if needed is not None and older:
        listed = ", ".join(f"server {server_id} has {cuda}" for server_id, cuda in older)
        wanted = shown_cuda(needed)
        notes.append(
            f"CUDA: the image needs {wanted}, but {listed}: it may not start there. Search with min_cuda {wanted}."
        )
    return notes


def _is_older(cuda: str, needed: Cuda) -> bool:
    from clore_mcp.market.listing import version  # the tools' schemas are listed without the market

    offered = version(cuda)
    return offered is not None and offered[:2] < needed
