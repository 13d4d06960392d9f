"""Prints the tour on the terminal: up to 80 columns, with or without colour, in the encoding of stdout."""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.status import Status
from rich.table import Table
from rich.text import Text

_WIDEST: Final = 78
_PLAINER: Final = str.maketrans({"…": "...", "×": "x", "–": "-", "—": "-", "→": "->", "·": "-"})

Key = Literal["y", "n", "q"]
_ANSWERS: Final[Mapping[str, Key]] = {"y": "y", "yes": "y", "n": "n", "no": "n", "q": "q", "quit": "q"}


class Screen:
    """Prints what the tour shows and reads the person's answers."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
        self._console.width = min(self._console.width, _WIDEST)
        self._status: Status | None = None

    def say(self, text: str, style: str = "") -> None:
        self._block(Text(" "), Text(self._fit(text), style))

    def gap(self) -> None:
        self._console.print()

    def heading(self, text: str) -> None:
        self.gap()
        self._console.print(Rule(Text(self._fit(text), "bold"), style="cyan", align="left"))

    def call(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """Print the tool call as the assistant makes it."""
        shown = Text.assemble((tool, "bold"), " ", (self._fit(json.dumps(arguments)), "dim"))
        self._block(Text(" > ", "cyan"), shown)

    def result(self, word: str, line: str, *more: str, good: bool = True) -> None:
        """Print the result: a word and its most important lines."""
        head = Text(word, "bold green" if good else "bold yellow")
        self._block(Text(" < ", "cyan"), Text.assemble(head, "  ", self._fit(line)))
        for other in more:
            self._block(Text("   "), Text(self._fit(other)))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int]) -> None:
        """Print rows under headings. `right` holds the places of the columns with numbers."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=any(columns))
        for place, name in enumerate(columns):
            table.add_column(Text(name), justify="right" if place in right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(self._fit(cell)) for cell in row))
        self._console.print(Padding(table, (0, 0, 0, 3)))

    def frame(self, title: str, text: str) -> None:
        """Print the server's own words in a frame."""
        words = Text(self._fit(text))
        self._console.print(Panel(words, title=Text(title, "bold"), title_align="left", border_style="yellow"))

    def line(self, text: str) -> None:
        """Print a line for pasting, on its own, without style and never broken."""
        self.gap()
        self._console.print(Text(f"   {self._fit(text)}", "bold"), soft_wrap=True)

    def progress(self, seconds: float, message: str) -> None:
        self._block(Text(f"{seconds:6.0f} s  ", "dim"), Text(self._fit(message), "dim"))

    def busy(self, text: str) -> None:
        """Show that a call is under way, only on a terminal."""
        self.idle()
        if self._console.is_terminal:
            spinner = "dots" if self._console.encoding.startswith("utf") else "line"
            self._status = self._console.status(Text(text, "dim"), spinner=spinner)
            self._status.start()

    def idle(self) -> None:
        """Stop showing that a call is under way."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def ask(self) -> Key:
        """Return the person's y, n or q. A closed terminal means q. Ctrl-C raises KeyboardInterrupt."""
        with _woken_by_signals() as woken:  # before the prompt, so that it is ready for a Ctrl-C at the prompt
            while True:
                self._console.print(Text(" Your answer? y = yes, n = no, q = leave the tour: ", "bold"), end="")
                if woken is not None:  # without this wait, input() would notice a Ctrl-C just before it at the next key
                    select.select([sys.stdin, woken], [], [])
                try:
                    said = input().strip().lower()
                except EOFError:
                    said = "q"
                self.gap()  # also ends the line of an answer typed before its question
                if said in _ANSWERS:
                    return _ANSWERS[said]

    def _block(self, lead: Text, text: Text) -> None:
        """Print wrapped text. A sign leads the first line, and the others are indented by its width."""
        for line in text.wrap(self._console, max(self._console.width - lead.cell_len, 20)):
            line.rstrip()
            self._console.print(Text.assemble(lead, line))
            lead = Text(" " * lead.cell_len)

    def _fit(self, text: str) -> str:
        """Return the text in characters that stdout can show."""
        encoding = self._console.encoding
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            return text.translate(_PLAINER).encode(encoding, "replace").decode(encoding)
        return text


@contextmanager
def _woken_by_signals() -> Iterator[socket.socket | None]:
    """Yield a socket that becomes readable on a signal, or None on Windows, where input() sees Ctrl-C itself."""
    if sys.platform == "win32":
        yield None
        return
    woken, wakes = socket.socketpair()
    with woken, wakes:
        wakes.setblocking(False)
        before = signal.set_wakeup_fd(wakes.fileno())
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(before)


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Let Ctrl-C raise inside. asyncio's handler would only cancel its task, and input() would keep waiting."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
