"""Putting something else in the product's place, inside a client process."""

from __future__ import annotations


def put(where: object, name: str, value: object) -> None:
    """From now on `where.name` is that. There must be something to replace: else the product has moved on."""
    getattr(where, name)
    setattr(where, name, value)
