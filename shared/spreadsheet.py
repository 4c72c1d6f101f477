"""What goes into a cell of a CSV file, so that a spreadsheet shows it and runs nothing."""

import json

# A cell of text that begins so would be run as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: object) -> str | int:
    """Numbers as they are, text that looks like a formula behind an apostrophe, lists and objects as JSON."""
    match value:
        case None:
            return ""
        case int():
            return value
        case str():
            return f"'{value}" if value.startswith(FORMULA_STARTS) else value
        case _:
            return json.dumps(value, ensure_ascii=False, sort_keys=True)
