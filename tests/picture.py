"""The README's picture: `python -m tests.picture` takes the tour at a terminal, answers it and draws what was shown.

It needs a POSIX system. tests/cli/test_demo.py holds the stored picture against the tour: every word of it, figures and
ids apart, must still be told.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.terminal import Terminal

PICTURE: Final = Path(__file__).parents[1] / "docs" / "demo.svg"
SHOWN: Final = ("You ask", "1/6", "3/6", "6/6")
"""How the parts begin that are drawn; each goes on to the next empty line."""

_ASKED: Final = " Your answer? y = yes, n = no, q = leave the tour: "
_WIDTH: Final = 78
_HOST: Final = "studio"  # whose machine it was is nobody's business
_FONT: Final = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"


def main() -> None:
    """Take the tour and draw it."""
    lines = [line for part in parts(on_screen(taken())) for line in (*part, "")][:-1]
    PICTURE.write_text(drawn([_without_host(line) for line in lines]), encoding="utf-8")
    print(f"{PICTURE}: {len(lines)} lines, {PICTURE.stat().st_size} bytes")


def taken() -> str:
    """What a terminal of 80 columns was sent while a person said yes twice."""
    told = ""
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"}
        with Terminal([sys.executable, "-m", "clore_mcp", "demo"], env) as terminal:
            for answer in ("y", "y"):
                terminal.expect(_ASKED)
                terminal.type(answer)
                told, terminal.seen = told + terminal.seen, ""
            done = terminal.end()
    if done.code != 0:
        raise SystemExit(f"the tour ended with {done.code}: {done.out}")
    return told + terminal.seen


def on_screen(sent: str) -> list[str]:
    """The lines that stay on the screen, with their colours: a spinner's have been cleared again."""
    lines, row = [""], 0
    for piece in re.split(r"(\r?\n|\r|\x1b\[[0-9?]*[A-HJKSThl])", sent):
        if piece.endswith("\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece.endswith("A") and piece.startswith("\x1b["):
            row -= int(piece[2:-1] or 1)
        elif piece != "\r" and not re.fullmatch(r"\x1b\[\?[0-9]+[hl]", piece):
            lines[row] += piece
    return lines


def parts(lines: Sequence[str]) -> Iterator[list[str]]:
    """The parts that are drawn, each up to an empty line."""
    plain = [Text.from_ansi(line).plain.strip() for line in lines]
    for begin in SHOWN:
        first = next(number for number, line in enumerate(plain) if line.startswith(begin))
        end = plain.index("", first)
        if plain[end - 1].startswith(_ASKED.strip()):  # the answer's own line end
            end = plain.index("", end + 1)
        yield [line for line in lines[first:end] if line]


def drawn(lines: Sequence[str]) -> str:
    """The lines as SVG, with whatever monospaced font the reader has: none comes from the network."""
    console = Console(record=True, width=_WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", _FONT).replace("font-family: arial", "font-family: sans-serif")
    svg = console.export_svg(title="clore-mcp demo", code_format=form, unique_id="demo")
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def words(told: str) -> str:
    """What is told, without what may differ from one tour to the next: figures, ids, lines' ends and frames."""
    told = re.sub(r"Your answer\? y.*?(?::\s+y|\(given by --yes\))", "Your answer? y", told, flags=re.DOTALL)
    told = re.sub(r"clore-mcp on [^\s,]+", "clore-mcp on HOST", re.sub(r"[─│╭╮╰╯]", " ", told))
    told = re.sub(r"Quote q\w+", "Quote ID", re.sub(r"SHA256:\S+", "KEY", told))
    return " ".join(re.sub(r"[0-9][0-9.,:TZ-]*", "0", told).split())


def words_of_parts(picture: Path = PICTURE) -> list[str]:
    """What the stored picture tells, part by part."""
    rows: dict[float, str] = {}
    for element in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text"):  # our own file
        if "clip-path" in element.attrib:
            at = float(element.attrib["y"])
            rows[at] = f"{rows.get(at, '')} {element.text or ''}".replace("\xa0", " ")
    text = "\n".join(rows[at] for at in sorted(rows))
    begins = sorted(text.index(begin) for begin in SHOWN)
    return [words(text[start:end]) for start, end in zip(begins, [*begins[1:], len(text)], strict=True)]


def _without_host(line: str) -> str:
    """The line with another machine's name, still as wide."""
    name = socket.gethostname()
    if f"clore-mcp on {name}" not in line:
        return line
    text, room = line.replace(f"on {name}", f"on {_HOST}"), len(_HOST) - len(name)
    frame = text.rindex("\x1b[33m│")
    blank = len(text[:frame]) - len(text[:frame].rstrip())
    if room >= blank:
        raise SystemExit(f"there is no room for {_HOST} instead of {name}")
    return text[: frame - room] + text[frame:] if room > 0 else text[:frame] + " " * -room + text[frame:]


if __name__ == "__main__":
    main()
