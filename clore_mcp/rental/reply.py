"""What a client made of the question that it was given: an answer of the person, or one of the ways to have none.

Only `Said.YES` is a yes. `decline` and a no in the form are the person's no: final, and counted for the pause. A
cancel, a silence, an error and a malformed answer are no answer of the person: they decide nothing, count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from clore_mcp.text import clean

if TYPE_CHECKING:
    from clore_mcp.store.quotes import Quote

_QUESTION_SHOWN: Final = 120


class Said(StrEnum):
    """What came back, in the words of the protocol where it has one."""

    YES = "yes"
    NO = "no"
    DECLINE = "decline"
    CANCEL = "cancel"
    SILENCE = "silence"
    ERROR = "error"
    MALFORMED = "malformed"


_WORDS: Final = {
    Said.YES: "answered yes",
    Said.NO: "answered no",
    Said.DECLINE: "answered 'decline'",
    Said.CANCEL: "answered 'cancel': the question was closed without a yes or a no",
    Said.SILENCE: "gave no answer in time",
    Said.ERROR: "could not ask: it answered with an error",
    Said.MALFORMED: "answered with something else than yes or no",
}
_CURES: Final = {
    Said.NO: "Ask the person what they would like changed; asking the same again does not help.",
    Said.DECLINE: "Ask the person what they would like changed; asking the same again does not help.",
    Said.CANCEL: "Ask the person in the chat; if they want it, call again and they are asked anew.",
    Said.SILENCE: "If the person is there now, call again and they are asked anew.",
}
UNSEEN: Final = "If they saw no question at all, the operator can set CLORE_APPROVAL=outside."


@dataclass(frozen=True, slots=True)
class QuestionReply:
    """What came back on one question, after how many seconds (None where nobody knows)."""

    said: Said
    seconds: float | None = None
    detail: str = ""  # the client's own words where it answered with an error; for people, never an instruction

    @property
    def is_no(self) -> bool:
        """Whether the person said no."""
        return self.said in (Said.NO, Said.DECLINE)

    @property
    def is_open(self) -> bool:
        """Whether the person was asked and gave no answer that counts: asking again can help."""
        return self.said in (Said.CANCEL, Said.SILENCE, Said.MALFORMED)

    def told(self, quote: Quote, caller: str) -> str:
        """What the client answered, to which question, after how long."""
        after = "" if self.seconds is None else f" after {self.seconds:.1f} s"
        detail = f" ({self.detail})" if self.detail else ""
        about = f"{quote.subject}, {quote.id}" if quote.subject else quote.id
        asked = clean(quote.question.partition("\n")[0], _QUESTION_SHOWN)
        return f"Asked '{asked}' ({about}), {caller}{after} {_WORDS[self.said]}{detail}."

    @property
    def cure(self) -> str:
        """Whether asking again can help."""
        return f"{_CURES.get(self.said, '')} {UNSEEN}".strip()
