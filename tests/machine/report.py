"""The report of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.machine.names import Broken


@dataclass(slots=True)
class Report:
    """What a run has done, and what was broken."""

    steps: int = 0
    orders: int = 0  # made by assistants, in all worlds
    of_watches: int = 0  # of these, made by watches
    broken: Broken | None = None
    error: BaseException | None = None
    trace: list[str] = field(default_factory=list)
    tally: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(f"{number:3} {line}" for number, line in enumerate(self.trace, 1))
