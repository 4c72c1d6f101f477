"""`farebox pricing draft|preview|approve|publish|withdraw|revert|list`: a price version before it is in force."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import AsJson
from cli.edge import Exit, UsageFault, show
from cli.pricing.door import Door, Json, pricing_door
from cli.pricing.progress import Pace, follow
from shared.money import format_minor

Version = Annotated[int, typer.Argument(min=1, help="The price version.")]
Because = Annotated[str, typer.Option("--because", help="Why; it is kept with the version.")]
Hash = Annotated[str, typer.Option("--hash", help="The hash that the preview ended with.")]
MOST_VERSIONS = 500
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
        _print_totals(found)
    else:
        detail = f": {found['detail']}" if found["detail"] else ""
        print(f"preview of price version {version} is {found['status']}{detail}")
    if not start and found["status"] != "done":
        raise typer.Exit(Exit.FAILED)


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


def revert(version: Version, as_json: AsJson = False) -> None:
    """Draft a version that gives everybody whom this one moved what he had before."""
    with pricing_door() as door:
        _said(door.ask("POST", f"/configs/{version}/revert", {}), as_json)


def list_versions(as_json: AsJson = False) -> None:
    """Price versions, oldest first."""
    with pricing_door() as door:
        found = door.pages("/configs", MOST_VERSIONS)
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


def _print_totals(found: Json) -> None:
    totals = found["totals"]
    print(f"preview of price version {found['price_version']}: {found['counted']:,} subscriptions")
    for outcome, count in totals["outcomes"].items():
        codes = totals.get("codes", {}).get(outcome, {})
        why = ", ".join(f"{code} {n:,}" for code, n in sorted(codes.items()))
        print(f"  {outcome:9} {count:>10,}" + (f"  ({why})" if why else ""))
    for currency, sums in sorted(totals.get("by_currency", {}).items()):
        old = format_minor(sums["old_minor"], currency)
        new = format_minor(sums["new_minor"], currency)
        print(f"  {old} -> {new}: {sums['rises']:,} rise, {sums['falls']:,} fall")
    for title, sides in (("rises", "largest_rises"), ("falls", "largest_falls")):
        for currency, extremes in sorted(totals.get(sides, {}).items()):
            for each in extremes[:3]:
                old = format_minor(each["old_minor"], currency)
                new = format_minor(each["new_minor"], currency)
                print(f"  {title}: {each['subscription_id']} {old} -> {new}")
    print(f"hash {found['hash']}")


def _content(file: Path) -> Json:
    try:
        found = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except ValueError as error:
        raise UsageFault(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageFault(f"{file}: write an object, such as docs/pricing.md shows")
    return found


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
