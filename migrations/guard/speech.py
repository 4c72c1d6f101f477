"""Where the job speaks: lines for people on stderr, what scripts read on stdout, as long as somebody listens.

Whoever closes a pipe (`… | head`) has what it wanted: a run that changes a database goes on, and its trail tells.
"""

import json
import os
import sys
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
    """On stdout."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _into_nothing(sys.stdout)


def tell_json(document: object) -> None:
    tell(json.dumps(document, default=str, ensure_ascii=False))


def _into_nothing(stream: TextIO) -> None:
    """What is still to be said, at exit too, breaks nothing."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
