"""One door for every price: what was previewed is approved by somebody else, and what was approved is published."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from services.pricing import preview, rollout
from services.pricing.drafts import ConfigDraft, RevertDraft
from services.pricing.layers import layers, stored_layers
from services.pricing.life import (
    approve_unseen,
    create_draft,
    draft_revert,
    revise_draft,
    start_preview,
    withdraw,
)
from services.pricing.models import PricingConfig
from services.pricing.versions import (
    AlreadyPublished,
    NothingToRevert,
    RevertWaits,
    TooLateToWithdraw,
    activate_due,
    drift_limit,
    publish_version,
)
from shared.db import Sessions
from shared.events import ConfigPublished
from tests.pricing.conftest import (
    CONFIG,
    Api,
    Shop,
    Ticking,
    decision,
    hear_storefront,
    publish_config,
    publish_previewed,
)

DEARER = {**CONFIG, "admin_percentage": "20"}
GERMANS = {"scope": {"places": ["DE"]}, "admin_percentage": "5"}


async def worked_off(sessions: Sessions, clock: Ticking) -> None:
    while await preview.run_once(sessions, clock) or await rollout.run_once(sessions, clock):
        pass


async def previewed(api: Api, sessions: Sessions, clock: Ticking, version: object) -> str:
    started = await api.ask("POST", f"/drafts/{version}/preview")
    assert (started.status_code, started.json()["status"]) == (202, "running")
    await worked_off(sessions, clock)
    done = await api.done("GET", f"/drafts/{version}/preview")
    assert done["status"] == "done", done
    return str(done["hash"])


async def test_what_the_preview_showed_is_approved_by_another_published_and_comes_true(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, clock.now)
    coffee = await shop.variant(1_000)
    boxes = {await shop.subscription([(coffee, n)]) for n in (1, 2)}
    await hear_storefront(shop, sessions)
    clock.pass_(minutes=1)
    version = (await api.done("POST", "/drafts", DEARER))["version"]
    path = f"/drafts/{version}"
    digest = await previewed(api, sessions, clock, version)
    seen = await api.done("GET", f"{path}/preview/subscriptions?outcome=moved")
    failed = await api.done("GET", f"{path}/preview/subscriptions?outcome=failed")
    assert failed["items"] == []
    promised = {line["subscription_id"]: line["new_total_minor"] for line in seen["items"]}  # type: ignore[attr-defined]
    assert set(promised) == {str(box) for box in boxes}

    early = await api.ask("POST", f"{path}/publish", {"hash": digest, "reason": "x"})
    assert (early.status_code, early.json()["type"]) == (409, "urn:farebox:problem:not-approved")
    other = await api.ask("POST", f"{path}/approve", {"hash": "0" * 64})
    assert (other.status_code, other.json()["type"]) == (409, "urn:farebox:problem:other-hash")
    approved = await api.done("POST", f"{path}/approve", {"hash": digest})
    assert (approved["status"], approved["approved_by"]) == ("approved", "pricing:approve")
    clock.pass_(minutes=1)
    await api.done("POST", f"{path}/publish", {"hash": digest, "reason": "spring"})
    await worked_off(sessions, clock)

    done = await api.done("GET", f"/configs/{version}/rollout")
    assert (done["status"], done["outcomes"]["moved"], done["drifted"]) == ("done", 2, 0)  # type: ignore[index]
    assert {str(b): (await shop.row(b))["total_minor"] for b in boxes} == promised
    told = await shop.storefront.fetch(
        "SELECT action, decided_by FROM pricing.decisions WHERE price_version = $1 ORDER BY id",
        version,
    )
    assert [tuple(line) for line in told] == [
        ("drafted", "pricing:write"),
        ("preview asked for", "pricing:write"),
        ("approved", "pricing:approve"),
        ("published", "pricing:write"),
    ]


async def test_a_changed_draft_has_neither_preview_nor_approval_and_its_editor_is_an_author(
    api: Api, sessions: Sessions, clock: Ticking
) -> None:
    version, digest = await api.approved(CONFIG)
    async with sessions.begin() as session:
        edited = await revise_draft(
            session,
            int(str(version)),
            ConfigDraft.model_validate(DEARER),
            decision("eve", clock.now),
        )
        assert (edited.status, edited.preview_hash, edited.approved_by) == ("draft", None, None)
        assert (edited.draft_revision, edited.authors) == (2, ["eve", "pricing:write"])
    refused = await api.ask("POST", f"/drafts/{version}/publish", {"hash": digest, "reason": "x"})
    assert refused.json()["type"] == "urn:farebox:problem:not-approved"
    refused = await api.ask("POST", f"/drafts/{version}/approve", {"hash": digest})
    assert refused.json()["type"] == "urn:farebox:problem:not-previewed"


async def test_a_preview_of_a_draft_that_changes_meanwhile_is_stale(
    sessions: Sessions, clock: Ticking
) -> None:
    async with sessions.begin() as session:
        config = await create_draft(
            session, ConfigDraft.model_validate(CONFIG), decision("ada", clock.now)
        )
        first = await start_preview(session, config.version, decision("ada", clock.now))
        again = await start_preview(session, config.version, decision("bob", clock.now))
        assert again.id == first.id
        await revise_draft(
            session, config.version, ConfigDraft.model_validate(DEARER), decision("ada", clock.now)
        )
        await session.refresh(first)
        assert first.status == "stale"
    assert await preview.run_once(sessions, clock) == 0


async def test_nobody_approves_what_he_wrote_a_part_of(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    version = int(str((await api.done("POST", "/drafts", CONFIG))["version"]))
    async with sessions.begin() as session:
        draft = ConfigDraft.model_validate(DEARER)
        await revise_draft(session, version, draft, decision("pricing:approve", clock.now))
    digest = await previewed(api, sessions, clock, version)
    refused = await api.ask("POST", f"/drafts/{version}/approve", {"hash": digest})
    assert (refused.status_code, refused.json()["type"]) == (
        403,
        "urn:farebox:problem:approved-by-its-author",
    )
    assert await shop.storefront.fetchval("SELECT approved_by FROM pricing.pricing_configs") is None


async def test_cohorts_are_in_force_beside_everything_one_version_each(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, clock.now)
    first = await publish_config(sessions, clock.pass_(days=1), GERMANS)
    second = await publish_config(
        sessions, clock.pass_(days=1), {**GERMANS, "admin_percentage": "4"}
    )
    async with sessions() as session:
        known = await layers(session)
    assert [layer.number for layer in known.current(clock.now)] == [1, second]
    before = clock.now - timedelta(hours=1)
    assert [layer.number for layer in known.in_force(before)] == [1, first]
    assert known.versions[first].effective_to == known.versions[second].effective_from
    fact = (await shop.facts(ConfigPublished.type))[-1]
    said = ConfigPublished.model_validate_json(fact["body"])
    assert said.scope == {"places": ["DE"]}
    # An older reader finds the terms that the cohort is priced by.
    assert (str(said.admin_percentage), "US" in said.tax_rates) == ("4", True)


async def test_what_a_version_says_is_read_once_and_an_audit_reads_what_is_there(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    first = await publish_config(sessions, clock.now)
    async with sessions() as session:
        before = await layers(session)
    await shop.storefront.execute("SET session_replication_role = replica")
    await shop.storefront.execute("UPDATE pricing.pricing_configs SET admin_percentage = 49")
    second = await publish_config(sessions, clock.pass_(days=1), DEARER)
    async with sessions() as session:
        now, stored = await layers(session), await stored_layers(session)
    assert now.versions[first].layer is before.versions[first].layer
    assert (before.versions[first].status, now.versions[first].status) == ("active", "retired")
    assert now.versions[first].effective_to == now.versions[second].effective_from
    assert stored.versions[first].layer.changes.admin_percentage == 49


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", -1])
def test_an_instant_is_a_string_that_the_calendar_reaches(at: object) -> None:
    with pytest.raises(ValidationError):
        ConfigDraft.model_validate({**CONFIG, "effective_from": at})


async def test_what_was_published_for_later_is_withdrawn_and_what_it_was_to_end_goes_on(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, clock.now)
    later = await publish_config(sessions, clock.now, DEARER, clock.now + timedelta(days=9))
    async with sessions.begin() as session:
        await withdraw(session, later, decision("ada", clock.now, "not now"))
    rows = await shop.storefront.fetch(
        "SELECT status, effective_to FROM pricing.pricing_configs ORDER BY version"
    )
    assert [tuple(row) for row in rows] == [("active", None), ("withdrawn", None)]
    facts = await shop.facts(ConfigPublished.type)
    assert [ConfigPublished.model_validate_json(f["body"]).withdrawn for f in facts] == [
        *(False, False),
        True,
    ]
    async with sessions.begin() as session:
        assert await activate_due(session, clock.pass_(days=10)) == 0


async def test_what_should_be_in_force_by_now_is_not_withdrawn_although_no_worker_noticed(
    sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, clock.now)
    later = await publish_config(sessions, clock.now, DEARER, clock.now + timedelta(hours=1))
    for minutes, refused in ((59.5, TooLateToWithdraw), (5, AlreadyPublished)):
        clock.pass_(minutes=minutes)
        with pytest.raises(refused):
            async with sessions.begin() as session:
                await withdraw(session, later, decision("ada", clock.now))


async def test_what_was_approved_is_not_published_once_its_preview_is_gone(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    later = clock.now + timedelta(days=1)
    now = await publish_previewed(sessions, clock.now, {**DEARER, "effective_from": later})
    made = await api.done("POST", "/drafts", CONFIG)
    path = f"/drafts/{made['version']}"
    digest = await previewed(api, sessions, clock, made["version"])
    await api.done("POST", f"{path}/approve", {"hash": digest})
    await shop.storefront.execute("DELETE FROM pricing.previews")
    refused = await api.ask("POST", f"{path}/publish", {"hash": digest, "reason": "x"})
    assert refused.json()["type"] == "urn:farebox:problem:preview-gone"
    # Published for later, and gone before: its rollout does not begin by itself.
    async with sessions.begin() as session:
        await activate_due(session, later)
    started = await shop.storefront.fetchrow("SELECT price_version, status FROM pricing.rollouts")
    assert tuple(started) == (now, "stopped")


async def test_an_approval_given_before_other_prices_were_published_is_asked_for_again(
    api: Api, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/drafts", GERMANS)
    path = f"/drafts/{made['version']}"
    started = clock.pass_(minutes=1)
    digest = await previewed(api, sessions, clock, made["version"])
    await api.done("POST", f"{path}/approve", {"hash": digest})
    await publish_config(sessions, clock.pass_(minutes=1), DEARER)
    refused = await api.ask("POST", f"{path}/publish", {"hash": digest, "reason": "x"})
    assert refused.json()["type"] == "urn:farebox:problem:preview-overtaken"

    # The same while the preview is under way: it would show two worlds.
    clock.now = started
    assert (await api.done("POST", f"{path}/preview"))["status"] == "running"
    await worked_off(sessions, clock)
    stale = await api.done("GET", f"{path}/preview")
    assert (stale["status"], "published meanwhile" in str(stale["detail"])) == ("stale", True)


async def test_a_version_that_nobody_noticed_in_its_time_has_a_rollout_all_the_same(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    start = clock.now
    await publish_config(sessions, start)
    missed = await publish_config(sessions, start, DEARER, start + timedelta(days=1))
    newest = await publish_config(sessions, start, CONFIG, start + timedelta(days=2))
    async with sessions.begin() as session:
        assert await activate_due(session, clock.pass_(days=3)) == 2
    rows = await shop.storefront.fetch(
        "SELECT version, c.status FROM pricing.pricing_configs c"
        " JOIN pricing.rollouts r ON r.price_version = c.version ORDER BY version"
    )
    assert [tuple(row) for row in rows] == [(1, "retired"), (missed, "retired"), (newest, "active")]


async def test_only_what_is_in_force_is_reverted_to_what_was_there_before(
    api: Api, sessions: Sessions, clock: Ticking
) -> None:
    first = await publish_config(sessions, clock.now)
    second = await publish_config(sessions, clock.pass_(days=1), DEARER)
    refused = await api.ask("POST", f"/configs/{first}/revert", {})
    assert refused.json()["type"] == "urn:farebox:problem:nothing-to-revert"
    draft = await api.done("POST", f"/configs/{second}/revert", {})
    assert (draft["reverts"], draft["admin_percentage"], draft["status"]) == (second, "10", "draft")
    edited = await api.ask("PUT", f"/drafts/{draft['version']}", DEARER)
    assert edited.json()["type"] == "urn:farebox:problem:reverts-nothing-else"
    cohort = await publish_config(sessions, clock.pass_(days=1), GERMANS)
    empty = await api.done("POST", f"/configs/{cohort}/revert", {})
    assert (empty["scope"], empty["admin_percentage"]) == ({"places": ["DE"]}, None)


async def test_a_revert_takes_back_what_is_in_force_when_it_begins_and_nothing_else(
    sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, clock.now)
    dearer = await publish_config(sessions, clock.pass_(days=1), DEARER)

    async def publish(reverts: int, wishes: dict[str, object]) -> int:
        async with sessions.begin() as session:
            author = decision("ada", clock.now)
            draft = RevertDraft.model_validate(wishes)
            config = await draft_revert(session, reverts, draft, author)
            digest = await approve_unseen(session, config, author)
            await publish_version(session, config.version, digest, author)
            return config.version

    later = clock.now + timedelta(days=5)
    waits = await publish(dearer, {"effective_from": later})
    with pytest.raises(RevertWaits):
        await publish_config(sessions, clock.now, DEARER, clock.now + timedelta(days=2))
    async with sessions.begin() as session:
        await withdraw(session, waits, decision("ada", clock.now))
    await publish_config(sessions, clock.now, DEARER, clock.now + timedelta(days=2))
    # Still in force when it is drafted, but not when it would begin.
    with pytest.raises(NothingToRevert):
        await publish(dearer, {"effective_from": later})
    clock.pass_(hours=1)
    await publish(dearer, {})


@pytest.mark.parametrize(
    ("moved", "percent", "limit"), [(0, 1, 10), (1_000, 1, 10), (100_000, 1, 1_000), (500, 50, 250)]
)
def test_drift_is_a_share_of_what_the_preview_moves_and_never_stops_for_ten(
    moved: int, percent: int, limit: int
) -> None:
    assert (
        drift_limit(moved, PricingConfig(drift_limit_percent=percent).drift_limit_percent) == limit
    )
