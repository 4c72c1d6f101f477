"""`farebox pricing draft|preview|lines|approve|publish|withdraw|revert|list`: a price version before it is in force."""

import json
import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from cli.arguments import AsJson
from cli.edge import Exit, UsageFault, show
from cli.pricing.door import Door, Json, pricing_door
from cli.pricing.progress import Pace, follow
from cli.pricing.totals import print_totals
from services.pricing.campaign import Outcome
from shared.money import format_minor

Version = Annotated[int, typer.Argument(min=1, help="The price version.")]
Because = Annotated[str, typer.Option("--because", help="Why; it is kept with the version.")]
Hash = Annotated[str, typer.Option("--hash", help="The hash that the preview ended with.")]
After = Annotated[UUID | None, typer.Option("--after", help="Go on after this one.")]
Most = Annotated[int, typer.Option("--limit", min=1, help="So many at most.")]
LINES_MOST = 500
CONTENT = (
    *("reverts", "admin_percentage", "delivery_cost_minor", "tax_rates", "tax_inclusive"),
    *("variant_prices_minor", "timing", "drift_limit_percent", "preview_hash", "reason"),
)


def draft(
    file: Annotated[
        Path, typer.Argument(help="The content as JSON (docs/pricing.md), or - for stdin.")
    ],
    replace: Annotated[
        int | None, typer.Option("--replace", min=1, help="Write this draft anew.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a draft.  It prices nothing until it is previewed, approved by another key and published."""
    content = _content(file)
    with pricing_door() as door:
        path = "/drafts" if replace is None else f"/drafts/{replace}"
        _said(door.ask("POST" if replace is None else "PUT", path, content), as_json)


def preview(
    version: Version,
    start: Annotated[bool, typer.Option("--start", help="Only start it.")] = False,
    again: Annotated[bool, typer.Option("--show", help="Only show the newest one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compute what it would do to every subscription; exits 1 if that fails or the draft changes meanwhile."""
    if start and again:
        raise UsageFault("--start and --show are two things")
    with pricing_door() as door:
        begun = {} if again else door.ask("POST", f"/drafts/{version}/preview")
        found = begun if start else _followed(door, version, as_json)
    if as_json:
        print(json.dumps(found))
    elif found["status"] == "done":
        print_totals(found)
    else:
        detail = f": {found['detail']}" if found["detail"] else ""
        print(f"preview of price version {version} is {found['status']}{detail}")
    if not start and found["status"] != "done":
        raise typer.Exit(Exit.FAILED)


def lines(
    version: Version,
    outcome: Annotated[Outcome | None, typer.Option("--outcome", help="Only those.")] = None,
    after: After = None,
    limit: Most = LINES_MOST,
    as_json: AsJson = False,
) -> None:
    """Subscription by subscription: what the newest preview says of it, and why."""
    with pricing_door() as door:
        path = lines_path(f"/drafts/{version}/preview/subscriptions", outcome)
        found = door.pages(path, limit, after)
    rows = [_line(each) for each in found]
    show(found if as_json else rows, as_json=as_json, empty="there is none")


def approve(version: Version, digest: Hash, as_json: AsJson = False) -> None:
    """Approve what the preview with this hash showed; the key must be another's than its authors'."""
    with pricing_door() as door:
        _said(door.ask("POST", f"/drafts/{version}/approve", {"hash": digest}), as_json)


def publish(version: Version, digest: Hash, because: Because, as_json: AsJson = False) -> None:
    """Put what was approved in force; `farebox pricing rollout show --follow` follows it."""
    with pricing_door() as door:
        order = {"hash": digest, "reason": because}
        _said(door.ask("POST", f"/drafts/{version}/publish", order), as_json)


def withdraw(version: Version, because: Because, as_json: AsJson = False) -> None:
    """Give a draft up, or take back what was published for later."""
    with pricing_door() as door:
        _said(door.ask("POST", f"/drafts/{version}/withdraw", {"reason": because}), as_json)


def revert(
    version: Version,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="How it reaches them, as JSON: timing, effective_from; now by default."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draft a version that gives everybody whom this one moved what he had before."""
    wishes = {} if file is None else _content(file)
    with pricing_door() as door:
        _said(door.ask("POST", f"/configs/{version}/revert", wishes), as_json)


def list_versions(
    after: Annotated[
        int | None, typer.Option("--after", min=0, help="Go on after this version.")
    ] = None,
    limit: Most = LINES_MOST,
    as_json: AsJson = False,
) -> None:
    """Price versions, oldest first."""
    with pricing_door() as door:
        found = door.pages("/configs", limit, after)
    names = ("version", "status", "effective_from", "effective_to", "created_by", "approved_by")
    rows = [
        {**{name: each[name] for name in names}, "for": _scope(each), "reason": each["reason"]}
        for each in found
    ]
    show(found if as_json else rows, as_json=as_json, empty="there is no price version")


def show_version(version: Version, as_json: AsJson = False) -> None:
    """What a version says, and who drafted, approved and published it, and had a hand on its rollout."""
    with pricing_door() as door:
        found = door.ask("GET", f"/configs/{version}")
        decisions = door.lines(f"/configs/{version}/decisions")
    if as_json:
        print(json.dumps({**found, "decisions": decisions}))
        return
    _said(found, as_json=False)
    unsaid: tuple[object, ...] = (None, {}, [])
    for name in CONTENT:
        if found[name] not in unsaid:
            print(f"  {name}: {json.dumps(found[name])}")
    show(decisions, as_json=False, empty="nobody has decided anything")


def lines_path(path: str, outcome: str | None) -> str:
    return path if outcome is None else f"{path}?outcome={outcome}"


def _line(found: Json) -> dict[str, object]:
    """With the amounts as people write them."""
    names = ("subscription_id", "outcome", "code", "reason")
    amounts = {
        title: None
        if found[name] is None or found["currency"] is None
        else format_minor(found[name], found["currency"])
        for title, name in (("before", "old_total_minor"), ("after", "new_total_minor"))
    }
    return {name: found[name] for name in names} | amounts | {"due_at": found["due_at"]}


def _followed(door: Door, version: int, as_json: bool) -> Json:
    pace = Pace(f"preview of price version {version}")
    found: Json = {}

    def step() -> str | None:
        found.update(door.ask("GET", f"/drafts/{version}/preview"))
        if found["status"] not in ("running", "hashing"):
            return None
        return pace.line(found["counted"], found["expected"], found["status"])

    follow(step, quiet=as_json)
    return found


def _content(file: Path) -> Json:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        found = json.loads(text, parse_constant=_no_number)
    except OSError as error:
        raise UsageFault(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageFault(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageFault(f"{file}: write an object, such as docs/pricing.md shows")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _said(config: Json, as_json: bool) -> None:
    if as_json:
        print(json.dumps(config))
        return
    since = f" from {config['effective_from']}" if config["effective_from"] else ""
    print(f"price version {config['version']} for {_scope(config)} is {config['status']}{since}")


def _scope(config: Json) -> str:
    scope: Json = config["scope"]
    return ", ".join(f"{key}={_short(value)}" for key, value in scope.items()) or "everything"


def _short(value: object) -> str:
    match value:
        case list() if len(value) > 3:
            return f"{len(value)} of them"
        case list():
            return "|".join(map(str, value))
        case _:
            return str(value)
