"""Where the job speaks: lines for people on stderr, what scripts read on stdout, as long as somebody listens.

Whoever closes a pipe (`… | head`) has what it wanted: a run that changes a database goes on, and its trail tells.
"""

import json
import os
import shutil
import sys
import textwrap
from typing import TextIO

from rich.console import Console


class Speaker(Console):
    """On stderr, line by line, and never the end of a run."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _into_nothing(sys.stderr)


def tell(text: str) -> None:
    """On stdout; a terminal's lines are folded where words end, under their own beginning."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(folded for line in text.splitlines() for folded in _fold(line, width))
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _into_nothing(sys.stdout)


def tell_json(document: object) -> None:
    try:
        print(json.dumps(document, default=str, ensure_ascii=False), flush=True)
    except BrokenPipeError:
        _into_nothing(sys.stdout)


def _fold(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _into_nothing(stream: TextIO) -> None:
    """What is still to be said, at exit too, breaks nothing."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
