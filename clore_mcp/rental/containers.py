"""Arguments for what runs on a server: the image, ports, environment and start script, each with its rules.

Some values make Clore fail only after renting (`&` in an env value, two http ports: docs/clore-api.md, section 4.4).
They are refused here, before anything is sent. Claims about an image's SSH, Jupyter and CUDA are what public sources
show, and docs/images.md says how certain each one is. Of any other image, only its name is known.
"""

from __future__ import annotations

import json
import re
import secrets
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from clore_mcp.text import hidden

Basis = Literal["seen", "documented", "reported", "unproven"]
Cuda = tuple[int, int]

DEFAULT: Final = "jupyter"
TOKEN_LENGTH: Final = 24  # Clore takes up to 32 letters and digits as password or token; 24 are 142 bits
JUPYTER_PORT: Final = "8888"


@dataclass(frozen=True, slots=True)
class KnownImage:
    """One image and its contents. `basis` is how certain it is that SSH works in it on Clore."""

    image: str
    brings: str
    pytorch: str
    jupyter: bool
    own_sshd: bool
    basis: Basis

    @property
    def cuda(self) -> str:
        """The CUDA version in its name, or "not known"."""
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
"""Short names that a person may write instead of a Docker name, in upper or lower case."""

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
    """Return the Docker name that a short name stands for. Any other text is returned unchanged."""
    known = SHORT_NAMES.get(text.lower())
    return text if known is None else known.image


def repository(image: str) -> str:
    """Return an image's name without Docker Hub's address, tag and digest."""
    name = image.partition("@")[0]
    hub = _DOCKER_HUB.match(name)
    name = name[hub.end() :] if hub else name
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


_WITH_SSHD: Final = frozenset(repository(one.image) for one in KNOWN if one.own_sshd)
_WITH_JUPYTER: Final = frozenset(repository(one.image) for one in KNOWN if one.jupyter)


def brings_sshd(image: str) -> bool:
    """Return whether an image is known to start an SSH server itself. Clore adds one to all others."""
    return repository(image) in _WITH_SSHD


def brings_jupyter(image: str) -> bool:
    """Return whether an image is known to start Jupyter on port 8888."""
    return repository(image) in _WITH_JUPYTER


def cuda_of(image: str) -> Cuda | None:
    """Return the CUDA version that an image was built with according to its name, or None."""
    name = image.partition("@")[0].lower()
    last = name.rpartition("/")[2]
    found = _NVIDIA_CUDA.match(name) or _NAMED_CUDA.search(last) or _SHORT_CUDA.search(last)
    return (int(found[1]), int(found[2] or 0)) if found else None


def least_cuda(image: str, at_least: str | None = None) -> str | None:
    """Return the lowest CUDA that a host must support for an image, never below `at_least`. None if any will do."""
    from clore_mcp.market.listing import version  # imported here: the tools' schemas are listed without the market

    needed, named = cuda_of(image), version(at_least) if at_least else None
    if needed is None or (named is not None and named[:2] >= needed):
        return at_least
    return shown_cuda(needed)


def shown_cuda(cuda: Cuda) -> str:
    """Return a CUDA version as text, such as '12.8'."""
    return f"{cuda[0]}.{cuda[1]}"


def image_notes(image: str, *, jupyter: bool, hosts: Sequence[tuple[int, str]] = ()) -> list[str]:
    """Return what a person should know about an image before paying, in one or two sentences each. `hosts` are the
    servers, each with the newest CUDA that its driver is listed to support."""
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
    if needed is not None:
        from clore_mcp.market.listing import version  # imported here: the tools' schemas are listed without the market

        older = [f"server {one} has {cuda}" for one, cuda in hosts if (version(cuda) or needed)[:2] < needed]
        wanted = shown_cuda(needed)
        if older:
            notes.append(
                f"CUDA: the image needs {wanted}, but {', '.join(older)}: it may not start there. Search with min_cuda"
                f" {wanted}."
            )
    return notes


# Docker's own grammar of a name: [host[:port]/]path[:tag][@digest], with upper case only in host and tag.
_IMAGE: Final = re.compile(
    r"(?:(?:[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|localhost|[a-zA-Z0-9-]+(?=:))(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_IMAGE_MAX: Final = 255
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_PORTS_MAX: Final = 32
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_ENV_JSON_LIMIT: Final = 12_288
_ENV_VALUE_MAX: Final = 1_536
_OUR_ENV: Final = frozenset({"SSH_PASSWORD", "JUPYTER_TOKEN", "WEBUI_PASSWORD"})
_SSH_PORT: Final = "22"


def _unsendable(text: str, allowed: str = "") -> str | None:
    """Return what is wrong with the first character that must not be sent to a container, or None. Characters that
    can't be shown (control, bidi, invisible ones, odd spaces) must not run behind the text that a person approves."""
    char = hidden(text, allowed)
    if char is None:
        return None
    if unicodedata.category(char) == "Zs":
        return f"contains U+{ord(char):04X}, which looks like a plain space; use a plain one"
    return f"contains the character U+{ord(char):04X}, which can't be shown; write it without"


def showable(text: str | None) -> str | None:
    """Return a text of several lines unchanged. Raises ValueError if a person can't be shown all of it."""
    wrong = _unsendable(text or "", "\n\t")
    if wrong:
        raise ValueError(wrong)
    return text


def _image(text: str) -> str:
    text = docker_name(text.strip())
    if len(text) > _IMAGE_MAX or not _IMAGE.fullmatch(text):
        raise ValueError(
            "is not a Docker image name such as cloreai/jupyter:ubuntu24.04-v2 or ghcr.io/owner/name@sha256:…;"
            " write all but the tag in lower case"
        )
    return text


def _ports(given: dict[str, str] | None) -> dict[str, str] | None:
    ports = given or {}
    if not all(_PORT.fullmatch(port) and int(port) <= 65_535 for port in ports):
        raise ValueError("keys must be port numbers from 1 to 65535, without leading zeros")
    if len(ports) > _PORTS_MAX:
        raise ValueError(f"names more than {_PORTS_MAX} ports; leave some out")
    if list(ports.values()).count("http") > 1:
        raise ValueError("may name only one http port, which Jupyter uses if requested")
    if ports.get(_SSH_PORT, "tcp") != "tcp":
        raise ValueError("port 22 is SSH and stays tcp")
    return given


def _env(env: dict[str, str] | None) -> dict[str, str] | None:
    for name, value in (env or {}).items():
        if not _ENV_NAME.match(name):
            raise ValueError("names must be letters, digits and _, not begin with a digit and be at most 128 long")
        if name in _OUR_ENV:
            raise ValueError(f"{name} is not set through env: passwords are made here, see `jupyter`")
        if "&" in value:
            raise ValueError(f"the value of {name} contains '&', which Clore fails on after renting; leave it out")
        if len(value) > _ENV_VALUE_MAX:
            raise ValueError(f"the value of {name} is longer than {_ENV_VALUE_MAX:,} characters; shorten it")
        if wrong := _unsendable(value):
            raise ValueError(f"the value of {name} {wrong}")
    if len(json.dumps(env)) >= _ENV_JSON_LIMIT:
        raise ValueError(f"is longer than {_ENV_JSON_LIMIT:,} characters as JSON; shorten it")
    return env


def with_ssh(ports: Mapping[str, str] | None) -> dict[str, str]:
    """Return the ports to request from Clore. Port 22 is always included."""
    return {_SSH_PORT: "tcp", **(ports or {})}


Image = Annotated[
    str,
    Field(
        description="jupyter, ubuntu, pytorch, cuda, vllm, comfyui (see clore://images) or any Docker image.",
        validate_default=True,
    ),
    AfterValidator(_image),
]
Ports = Annotated[
    dict[str, Literal["tcp", "http"]] | None,
    Field(description='E.g. {"8888":"http"}; 22/tcp is always there; one http port at most.'),
    AfterValidator(_ports),
]
Env = Annotated[
    dict[str, str] | None, Field(description="Container environment; no & in values."), AfterValidator(_env)
]
Command = Annotated[
    str | None,
    Field(max_length=4096, description="Start script, run while SSH runs. To see its output, have it write a file."),
    AfterValidator(showable),
]


def secret_token() -> str:
    """Return a new password or Jupyter token. It has only letters and digits, and fits Clore's limit of 32."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(TOKEN_LENGTH))
