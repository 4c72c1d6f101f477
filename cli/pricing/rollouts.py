"""`farebox pricing rollout …` and notices: a published version on its way, and a hand on it."""

import json
from typing import Annotated, Literal
from uuid import UUID

import typer

from cli.arguments import AsJson
from cli.edge import Exit, show
from cli.pricing.door import Json, pricing_door
from cli.pricing.drafts import LINES_MOST, After, Because, Most, Version, lines_path
from cli.pricing.progress import Pace, follow
from cli.pricing.totals import print_outcomes

MOVING = ("listing", "running")
OfRollout = Literal["moved", "kept", "excluded", "deferred", "failed", "todo"]

rollout = typer.Typer(
    help="A published version on its way to the subscriptions.", no_args_is_help=True
)


@rollout.command("show")
def show_rollout(
    version: Version,
    follow_it: Annotated[
        bool, typer.Option("--follow", help="Until nothing is left to do now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """How many were moved, kept, excluded, deferred or failed and why; exits 1 where it is stopped or some failed."""
    pace = Pace(f"rollout of price version {version}")
    found: Json = {}
    with pricing_door() as door:

        def step() -> str | None:
            found.update(door.ask("GET", f"/configs/{version}/rollout"))
            waits = found["status"] == "running" and 0 < found["later"] == found["todo"]
            if not follow_it or found["status"] not in MOVING or waits:
                return None
            done = found["listed"] - found["todo"]
            return pace.line(done, max(found["expected"], found["listed"]), found["status"])

        follow(step, quiet=as_json)
    _print(found, as_json)
    if found["status"] == "stopped" or found["outcomes"]["failed"]:
        raise typer.Exit(Exit.FAILED)


@rollout.command("lines")
def rollout_lines(
    version: Version,
    outcome: Annotated[
        OfRollout | None, typer.Option("--outcome", help="Only those; todo: who waits.")
    ] = None,
    after: After = None,
    limit: Most = LINES_MOST,
    as_json: AsJson = False,
) -> None:
    """Subscription by subscription: what became of it and why, or when its turn is."""
    with pricing_door() as door:
        path = lines_path(f"/configs/{version}/rollout/subscriptions", outcome)
        found = door.pages(path, limit, after)
    show(found, as_json=as_json, empty="there is none")


@rollout.command()
def pause(version: Version, because: Because, as_json: AsJson = False) -> None:
    """Move nobody until it is resumed."""
    _step(version, "pause", because, as_json)


@rollout.command()
def resume(version: Version, because: Because, as_json: AsJson = False) -> None:
    """Go on, after a pause or where drift stopped it."""
    _step(version, "resume", because, as_json)


@rollout.command()
def cancel(version: Version, because: Because, as_json: AsJson = False) -> None:
    """Move nobody any more; `farebox pricing revert` takes back what was done."""
    _step(version, "cancel", because, as_json)


@rollout.command("apply-deferred")
def apply_deferred(version: Version, because: Because, as_json: AsJson = False) -> None:
    """Move those set aside because they are not what the preview showed; needs the scope to approve."""
    _step(version, "apply-deferred", because, as_json)


@rollout.command("retry-failed")
def retry_failed(version: Version, because: Because, as_json: AsJson = False) -> None:
    """Try again what failed, once its reason is gone."""
    _step(version, "retry-failed", because, as_json)


def notices(
    untold: Annotated[
        bool, typer.Option("--untold", help="Only whose customer was not told yet.")
    ] = False,
    after: After = None,
    limit: Most = LINES_MOST,
    as_json: AsJson = False,
) -> None:
    """Customers to be told of a higher price, and by when."""
    with pricing_door() as door:
        path = f"/notices?untold={str(untold).lower()}"
        found = door.pages(path, limit, after)
    show(found, as_json=as_json, empty="no notice is due")


def told(notice: UUID, as_json: AsJson = False) -> None:
    """Say that the customer of this notice was told now."""
    with pricing_door() as door:
        show([door.ask("POST", f"/notices/{notice}/told")], as_json=as_json, empty="")


def _step(version: int, action: str, because: str, as_json: bool) -> None:
    with pricing_door() as door:
        path = f"/configs/{version}/rollout/{action}"
        _print(door.ask("POST", path, {"reason": because}), as_json)


def _print(found: Json, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    state = f"{found['status']}: {found['detail']}" if found["detail"] else found["status"]
    print(f"rollout of price version {found['price_version']} is {state}")
    print_outcomes(found["outcomes"], found["codes"])
    print(f"  {'to do':9} {found['todo']:>10,}" + _later(found))
    if found["drifted"]:
        print(f"  {found['drifted']:,} differ from the preview, {found['drift_limit']:,} may")


def _later(found: Json) -> str:
    if not found["later"]:
        return ""
    return f"  ({found['later']:,} wait for their time, the first {found['next_due_at']})"
