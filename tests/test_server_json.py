"""server.json: what the MCP registry would be given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clore_mcp import __version__
from clore_mcp.settings import ACCEPTED

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT.parent / "shared" / "schemas" / "server.schema.json"


@pytest.fixture
def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
    return found


def test_it_fits_the_published_schema(described: dict[str, Any]) -> None:
    if not SCHEMA.is_file():
        pytest.skip("the schema is not beside this checkout")
    jsonschema: Any = pytest.importorskip("jsonschema")  # imported so, for it has no types
    jsonschema.validate(described, json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_what_the_registry_requires_is_there(described: dict[str, Any]) -> None:
    assert {"name", "description", "version", "packages"} <= described.keys()
    assert len(described["description"]) <= 100
    (package,) = described["packages"]
    assert (package["registryType"], package["identifier"]) == ("pypi", "clore-mcp")
    assert package["transport"] == {"type": "stdio"}


def test_the_version_is_the_packages(described: dict[str, Any]) -> None:
    assert described["version"] == __version__ == described["packages"][0]["version"]


def test_the_readme_proves_the_name(described: dict[str, Any]) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert f"<!-- mcp-name: {described['name']} -->" in lines


def test_variables_are_real_and_the_key_is_secret(described: dict[str, Any]) -> None:
    variables = {one["name"]: one for one in described["packages"][0]["environmentVariables"]}
    assert variables.keys() <= ACCEPTED.keys()
    assert [name for name, one in variables.items() if one.get("isSecret")] == ["CLORE_API_KEY"]
