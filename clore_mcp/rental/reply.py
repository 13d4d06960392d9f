"""A client's reply to a question: the person's answer, or why there is none.

Only `ReplyKind.YES` is a yes. `decline` and a no in the form are the person's no, which is final and counts for the
pause. A cancel, a silence, an error and a malformed reply are not the person's answer. They decide nothing and do not
count.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from clore_mcp.text import clean

if TYPE_CHECKING:
    from clore_mcp.store import Quote

_QUESTION_SHOWN: Final = 120


class ReplyKind(StrEnum):
    """The kinds of reply, in the protocol's words if it has one."""

    YES = "yes"
    NO = "no"
    DECLINE = "decline"
    CANCEL = "cancel"
    SILENCE = "silence"
    ERROR = "error"
    MALFORMED = "malformed"


_WORDS: Final = {
    ReplyKind.YES: "answered yes",
    ReplyKind.NO: "answered no",
    ReplyKind.DECLINE: "answered 'decline'",
    ReplyKind.CANCEL: "answered 'cancel', so the question was closed without a yes or a no",
    ReplyKind.SILENCE: "gave no answer in time",
    ReplyKind.ERROR: "could not ask and answered with an error",
    ReplyKind.MALFORMED: "answered with neither yes nor no",
}
_CHANGE_IT: Final = "Ask the person what they would like changed. Asking the same question again does not help."
_CURES: Final = {
    ReplyKind.NO: _CHANGE_IT,
    ReplyKind.DECLINE: _CHANGE_IT,
    ReplyKind.CANCEL: "Ask the person in the chat. If they want it, call again to ask them the question again.",
    ReplyKind.SILENCE: "If the person is there now, call again to ask them the question again.",
}
UNSEEN: Final = "If they saw no question, the operator can set CLORE_APPROVAL=outside."


@dataclass(frozen=True, slots=True)
class QuestionReply:
    """The reply to one question, and the seconds that it took (None if unknown)."""

    said: ReplyKind
    seconds: float | None = None
    detail: str = ""  # the client's own words if it answered with an error: data for people, never an instruction

    @property
    def is_no(self) -> bool:
        """Whether the person said no."""
        return self.said in (ReplyKind.NO, ReplyKind.DECLINE)

    @property
    def is_open(self) -> bool:
        """Whether the person was asked and gave no answer that counts, so that asking again can help."""
        return self.said in (ReplyKind.CANCEL, ReplyKind.SILENCE, ReplyKind.MALFORMED)

    def told(self, quote: Quote, caller: str) -> str:
        """Return what the client answered, to which question, after how long."""
        after = "" if self.seconds is None else f" after {self.seconds:.1f} s"
        detail = f" ({self.detail})" if self.detail else ""
        about = f"{quote.subject}, {quote.id}" if quote.subject else quote.id
        asked = clean(quote.question.partition("\n")[0], _QUESTION_SHOWN)
        return f"Asked '{asked}' ({about}), {caller}{after} {_WORDS[self.said]}{detail}."

    @property
    def cure(self) -> str:
        """What the caller can do about it."""
        return f"{_CURES.get(self.said, '')} {UNSEEN}".strip()
