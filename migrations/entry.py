"""The way into a command: an installation whose models cannot be imported is refused in one line, as by preflight.

Imported before anything else, it needs nothing but Python.
"""

import importlib
import sys
from collections.abc import Callable

from migrations.unseen import hide_passwords

REFUSED_BY_PREFLIGHT = 20


def start(module: str) -> int:
    """`main()` of `module`; nothing was touched if it cannot be imported."""
    hide_passwords()
    try:
        main: Callable[[], int | None] = importlib.import_module(module).main
    except Exception as error:  # noqa: BLE001 - a broken module may raise anything
        said = " ".join(str(error).split())
        print(
            f"{module}: this installation is broken, its models or what they need cannot be imported:"
            f" {type(error).__name__}: {said}; install this release again (make venv-demo)",
            file=sys.stderr,
        )
        return REFUSED_BY_PREFLIGHT
    return main() or 0
