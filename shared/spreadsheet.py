"""What goes into a cell of a CSV file, so that a spreadsheet shows it and runs nothing."""

import json
import re

# A cell of text that begins so would be run as a formula, in East Asian settings also in full width.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# And, where a semicolon or a tab parts the cells of a file, whatever begins so behind one.
BEHIND_SEPARATOR = re.compile("([;\t]\\s*)(?=[-=+@\uff1d\uff0b\uff0d\uff20])")


def cell(value: object) -> str | int:
    """Numbers as they are, text that looks like a formula behind an apostrophe, lists and objects as JSON."""
    match value:
        case None:
            return ""
        case int():
            return value
        case str():
            return _harmless(value)
        case _:
            return _harmless(json.dumps(value, ensure_ascii=False, sort_keys=True))


def _harmless(text: str) -> str:
    shown = BEHIND_SEPARATOR.sub(r"\1'", text)
    # Blanks before it are passed over by some.
    starts = text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS)
    return f"'{shown}" if starts else shown
