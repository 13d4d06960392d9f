"""What is asked to run on a server: the types of image, ports, environment and start script, each with its rules.

What Clore answers with an error after the fact (`&` in an env value, two http ports: docs/clore-api.md, section 4.4) is
refused here before anything is sent.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from clore_mcp.rental.create.images import docker_name
from clore_mcp.text import hidden

# Docker's own grammar of a name: [host[:port]/]path[:tag][@digest], upper case in host and tag only.
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
    """What is wrong with the first character that no container should be sent, or None: what a person can't be shown
    (control, bidi, invisible ones, odd spaces) must not run behind what they are shown."""
    char = hidden(text, allowed)
    if char is None:
        return None
    if unicodedata.category(char) == "Zs":
        return f"contains U+{ord(char):04X}, which looks like a plain space; write a plain one"
    return f"contains the character U+{ord(char):04X}, which can't be shown; write it without"


def showable(text: str | None) -> str | None:
    """A text of several lines that a person can be shown whole."""
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


def _ports(ports: dict[str, str] | None) -> dict[str, str] | None:
    for port in ports or {}:
        if not _PORT.fullmatch(port) or int(port) > 65_535:
            raise ValueError("keys must be port numbers from 1 to 65535, without leading zeros")
    if len(ports or {}) > _PORTS_MAX:
        raise ValueError(f"names more than {_PORTS_MAX} ports; leave some out")
    if list((ports or {}).values()).count("http") > 1:
        raise ValueError("may name one http port at most; Jupyter, where asked for, is on that one")
    if (ports or {}).get(_SSH_PORT, "tcp") != "tcp":
        raise ValueError("port 22 is SSH and stays tcp")
    return ports


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
    """The ports as Clore is asked for them: 22 always."""
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
    dict[str, str] | None,
    Field(description="Container environment; no & in values."),
    AfterValidator(_env),
]
Command = Annotated[
    str | None,
    Field(
        max_length=4096,
        description="Start script, run beside SSH. To see its output, have it write a file.",
    ),
    AfterValidator(showable),
]
