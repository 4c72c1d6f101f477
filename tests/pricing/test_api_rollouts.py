"""A rollout and its notices over HTTP: whoever was not told in time keeps his price, and a hand can stop it."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import pytest

from services.pricing import preview, rollout, tidying
from services.pricing.drafts import ConfigDraft
from services.pricing.life import revise_draft
from shared.db import Sessions
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

NOTICE = {"admin_percentage": "20", "timing": {"when": "now", "notice_days": 30}}


@pytest.fixture
async def boxes(shop: Shop, sessions: Sessions, clock: Ticking) -> list[UUID]:
    """Two subscriptions that a dearer version reaches in 33 days, if their customers are told."""
    await publish_config(sessions, clock.now)
    coffee = await shop.variant(1_000)
    made = [await shop.subscription([(coffee, n)]) for n in (1, 2)]
    await hear_storefront(shop, sessions)
    await publish_previewed(sessions, clock.pass_(minutes=1), NOTICE)
    await work_off(sessions, clock)
    return made


async def work_off(sessions: Sessions, clock: Ticking) -> None:
    while await rollout.run_once(sessions, clock):
        pass


async def lines(api: Api, outcome: str) -> Mapping[str, object]:
    page = await api.done("GET", f"/configs/2/rollout/subscriptions?outcome={outcome}")
    return {line["subscription_id"]: line["code"] for line in page["items"]}  # type: ignore[attr-defined]


async def test_whoever_was_told_in_time_is_moved_and_the_other_keeps_his_price(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, boxes: list[UUID]
) -> None:
    waiting = await api.done("GET", "/configs/2/rollout")
    assert (waiting["status"], waiting["todo"], waiting["later"]) == ("running", 2, 2)
    page = await api.done("GET", "/notices?untold=true")
    notices = {line["subscription_id"]: line for line in page["items"]}  # type: ignore[attr-defined]
    assert set(notices) == {str(box) for box in boxes}
    [told, late] = boxes
    path = f"/notices/{notices[str(told)]['id']}/told"
    first = await api.done("POST", path)
    assert first["told_by"] == "pricing:notify"
    clock.pass_(days=10)
    assert await api.done("POST", path) == first
    assert len((await api.done("GET", "/notices?untold=true"))["items"]) == 1  # type: ignore[arg-type]
    before = (await shop.row(late))["total_minor"]

    clock.pass_(days=24)
    await api.done("POST", f"/notices/{notices[str(late)]['id']}/told")  # ten days too late
    await work_off(sessions, clock)
    assert await lines(api, "moved") == {str(told): None}
    assert await lines(api, "kept") == {str(late): "not_told"}
    assert (await shop.row(late))["total_minor"] == before
    assert (await shop.row(told))["price_version"] == 2


async def test_a_hand_pauses_resumes_and_cancels_and_says_why(
    api: Api, sessions: Sessions, clock: Ticking, boxes: list[UUID]
) -> None:
    path, why = "/configs/2/rollout", {"reason": "let us wait"}
    paused = await api.done("POST", f"{path}/pause", why)
    assert (paused["status"], paused["detail"]) == ("paused", "let us wait")
    again = await api.ask("POST", f"{path}/pause", why)
    assert again.json()["type"] == "urn:farebox:problem:rollout-not-in-this-state"
    clock.pass_(days=40)
    await work_off(sessions, clock)
    assert await lines(api, "todo") == {str(box): None for box in boxes}
    assert (await api.done("POST", f"{path}/resume", why))["status"] == "running"
    await api.done("POST", f"{path}/cancel", {"reason": "never mind"})
    await work_off(sessions, clock)
    assert await lines(api, "deferred") == {str(box): "canceled" for box in boxes}
    refused = await api.ask("POST", f"{path}/apply-deferred", why, scope="pricing:write")
    assert refused.status_code == 403
    said = await api.client.get(
        "/configs/2/decisions", headers={"Authorization": f"Bearer {api.keys['pricing:read']}"}
    )
    steps = [(line["action"], line["reason"]) for line in said.json()][-3:]
    assert steps == [
        ("rollout paused", "let us wait"),
        ("rollout resumed", "let us wait"),
        ("rollout canceled", "never mind"),
    ]


async def test_what_a_stale_preview_said_of_each_is_thrown_away_and_what_counts_is_kept(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, boxes: list[UUID]
) -> None:
    made = await api.done("POST", "/drafts", CONFIG)
    version = int(str(made["version"]))
    await api.done("POST", f"/drafts/{version}/preview")
    while await preview.run_once(sessions, clock):
        pass
    count = "SELECT count(*) FROM pricing.preview_items"
    assert await shop.storefront.fetchval(count) == 2 * len(boxes)
    assert await tidying.run_once(sessions) == 0
    async with sessions.begin() as session:
        draft = ConfigDraft.model_validate(CONFIG)
        await revise_draft(session, version, draft, decision("ada", clock.now + timedelta(days=1)))
    assert await tidying.run_once(sessions) == len(boxes)
    assert await shop.storefront.fetchval(count) == len(boxes)
