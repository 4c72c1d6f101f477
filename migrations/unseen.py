"""Passwords typed as arguments, out of the sight of `ps`: the program starts over with a command line that shows none.

What was typed goes along in the environment, which nobody but its user may read, and is taken out of it at once.
"""

import json
import os
import sys

from migrations.guard.trail import redact_text

VARIABLE = "FAREBOX_TYPED"


def hide_passwords() -> None:
    """Returns with `sys.argv` as it was typed.  To be called before anything slow is imported: until then they show."""
    typed = os.environ.pop(VARIABLE, None)
    if typed is not None:
        sys.argv[1:] = json.loads(typed)
        return
    shown = [redact_text(each) for each in sys.orig_argv[1:]]
    # Windows starts a second process instead, and has no `ps`.
    if shown == sys.orig_argv[1:] or os.name != "posix":
        return
    os.environ[VARIABLE] = json.dumps(sys.argv[1:])
    os.execv(sys.executable, [sys.executable, *shown])
