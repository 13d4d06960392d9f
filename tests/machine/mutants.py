"""Each rule broken on purpose: what the machine must catch, and by which invariant."""

from __future__ import annotations

from tests.machine import mutants_of_consent, mutants_of_orders, mutants_of_watches
from tests.machine.breaking import MUTANTS

__all__ = ["MUTANTS", "mutants_of_consent", "mutants_of_orders", "mutants_of_watches"]
