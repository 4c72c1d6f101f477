"""HTTP in: price versions, quotes and subscriptions.  Every route asks for a key with its scope."""

from fastapi import APIRouter

from services.pricing.api import (
    configs,
    costs,
    drafts,
    exports,
    notices,
    prorations,
    quotes,
    rollouts,
    subscriptions,
    variants,
)
from services.pricing.api.shapes import PROBLEMS

router = APIRouter(responses=PROBLEMS)
router.include_router(drafts.router)
router.include_router(configs.router)
router.include_router(rollouts.router)
router.include_router(notices.router)
router.include_router(quotes.router)
router.include_router(variants.router)
router.include_router(subscriptions.router)
router.include_router(costs.router)
router.include_router(prorations.router)
router.include_router(exports.router)
