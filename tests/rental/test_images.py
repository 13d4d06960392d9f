"""Which image a name stands for, what is known of it, and what a person is told before it is paid for."""

from __future__ import annotations

from typing import Any

import pytest

from clore_mcp.rental.containers import (
    KNOWN,
    SHORT_NAMES,
    brings_jupyter,
    brings_sshd,
    cuda_of,
    image_notes,
    repository,
)
from clore_mcp.rental.create.send import create_request
from clore_mcp.rental.requests import CreateWatch
from clore_mcp.sandbox.images import contents
from clore_mcp.sandbox.options import Options
from tests.rental.wishes import IMAGE, ask, candidate, fees, listing

WATCH: dict[str, Any] = {"gpu": "4090", "max_usd_per_hour": 1, "hours": 1, "expires_hours": 24}


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_a_short_name_is_its_docker_image_in_any_case_and_the_same_wish(name: str) -> None:
    image = SHORT_NAMES[name].image
    for written in (name, name.upper(), name.capitalize()):
        assert ask(image=written) == ask(image=image)
        assert CreateWatch(image=written, **WATCH).image == image
    assert ask(image=image).image == image


def test_without_an_image_it_is_jupyter() -> None:
    wish = ask().model_dump() | {"image": None}
    del wish["image"]
    assert type(ask()).model_validate(wish).image == IMAGE == SHORT_NAMES["jupyter"].image
    assert CreateWatch(**WATCH).image == IMAGE


@pytest.mark.parametrize(
    "image", ["ubuntu:24.04", "library/ubuntu", "docker.io/library/ubuntu", "debian", "me/pytorch"]
)
def test_any_other_name_is_dockers(image: str) -> None:
    assert ask(image=image).image == image


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.image)
def test_what_is_said_of_an_image_is_what_the_sandbox_has_it_do(known: Any) -> None:
    inside = contents(known.image, Options())
    assert (known.own_sshd, known.jupyter) == (inside.sshd, inside.jupyter)
    assert cuda_of(known.image) == inside.cuda
    assert brings_sshd(known.image) is inside.sshd and brings_jupyter(known.image) is inside.jupyter


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("a/b", "a/b"),
        ("a/b:tag", "a/b"),
        ("a/b:tag@sha256:" + "0" * 64, "a/b"),
        ("a/b@sha256:" + "0" * 64, "a/b"),
        ("docker.io/a/b:tag", "a/b"),
        ("index.docker.io/library/ubuntu:24.04", "ubuntu"),
        ("localhost:5000/a/b", "localhost:5000/a/b"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b"),
        ("ghcr.io/cloreai/jupyter:1", "ghcr.io/cloreai/jupyter"),
    ],
)
def test_a_repository_is_the_name_without_tag_digest_and_docker_hub(image: str, name: str) -> None:
    assert repository(image) == name


@pytest.mark.parametrize(
    ("image", "own"),
    [
        (IMAGE, True),
        ("docker.io/" + IMAGE, True),
        ("cloreai/jupyter:some-later-tag", True),
        ("cloreai/torch:2.0.1", True),
        ("cloreai/hiveos:0.1", False),
        ("cloreai/jupyter2", False),
        ("ghcr.io/cloreai/jupyter:ubuntu24.04-v2", False),
        ("me/cloreai/jupyter", False),
        ("nvidia/cuda:12.8.0-base-ubuntu22.04", False),
    ],
)
def test_every_image_without_sshd_of_its_own_is_sent_with_clores_entrypoint(image: str, own: bool) -> None:
    wish = ask(image=image)
    found = candidate(wish, listing(), fees())
    create = create_request(wish, found, found.listed_per_day, "ssh-ed25519 x", {})
    assert create.autossh_entrypoint is not own


@pytest.mark.parametrize(
    ("image", "cuda"),
    [
        ("nvidia/cuda:12.8.0-base-ubuntu22.04", (12, 8)),
        ("nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04", (11, 8)),
        ("nvidia/cuda:13.0", (13, 0)),
        ("docker.io/nvidia/cuda:12.4.1-runtime", (12, 4)),
        ("nvcr.io/nvidia/cuda:12.10.0-base", (12, 10)),
        ("pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime", (12, 4)),
        ("me/app:torch2.6.0-cu124", (12, 4)),
        ("me/app:cu118-slim", (11, 8)),
        ("me/train-cuda12.1:latest", (12, 1)),
        ("cloreai/ubuntu22.04-cuda12", (12, 0)),
        ("me/app:CUDA-12.6", (12, 6)),
        ("pytorch/pytorch:latest", None),
        ("nvidia/cuda:latest", None),
        ("me/cuda", None),
        ("me/app:cuda1224", None),
        ("me/app:accu124", None),
        ("me/app:cu12", None),
        ("cu124/app:1", None),
        ("ubuntu:22.04", None),
        (IMAGE, None),
    ],
)  # fmt: skip
def test_an_images_cuda_is_what_its_name_says_or_nothing(image: str, cuda: tuple[int, int] | None) -> None:
    assert cuda_of(image) == cuda


@pytest.mark.parametrize(
    ("image", "hosts", "older"),
    [
        ("cuda", {5: "12.4"}, {5}),
        ("cuda", {5: "12.4", 6: "13.0", 7: "12.2"}, {5, 7}),
        ("cuda", {5: "12.8"}, set()),
        ("cuda", {5: "12.10"}, set()),
        ("cuda", {5: "", 6: "garbage", 7: "12.4 ignore"}, set()),
        ("jupyter", {5: "11.7"}, set()),
        ("me/app:latest", {5: "11.7"}, set()),
        ("me/app:cu130", {5: "12.8"}, {5}),
    ],
)
def test_a_host_whose_driver_is_too_old_is_named_and_nothing_is_said_where_nothing_is_known(
    image: str, hosts: dict[int, str], older: set[int]
) -> None:
    notes = " ".join(image_notes(ask(image=image).image, jupyter=False, hosts=list(hosts.items())))
    assert {number for number in hosts if f"server {number} has {hosts[number]}" in notes} == older
    assert ("CUDA: " in notes) is bool(older) is ("min_cuda" in notes)


def test_of_an_image_that_brings_all_nothing_is_said() -> None:
    for name in ("jupyter", "ubuntu"):
        assert image_notes(SHORT_NAMES[name].image, jupyter=True, hosts=[(5, "11.7")]) == []


def test_a_foreign_image_means_that_ssh_and_jupyter_are_not_certain_and_that_no_login_is_sent() -> None:
    ssh, jupyter = image_notes("me/private:1", jupyter=True)
    assert "does not work in every image; the order bills either way" in ssh and "no registry login is sent" in ssh
    assert "Jupyter: it is not known to be in the image" in jupyter


def test_a_bare_name_that_is_no_short_name_is_said_to_be_docker_hubs() -> None:
    assert any(
        '"tensorflow" is none of the short names (jupyter,' in one for one in image_notes("tensorflow", jupyter=False)
    )
    assert not any("short names" in one for one in image_notes("ubuntu:24.04", jupyter=False))


def test_the_list_of_images_says_which_cuda_each_one_needs_as_far_as_its_name_tells() -> None:
    assert (SHORT_NAMES["cuda"].cuda, SHORT_NAMES["jupyter"].cuda) == ("12.8", "not known")
