"""API keys: shown once, stored hashed, each with the scopes it was created for."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import ARRAY, DateTime, String, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base, Sessions
from shared.errors import InvalidInput, ScopeMissing, Unauthorized

SCOPES = {
    "pricing": ("pricing:read", "pricing:write", "subscriptions:read", "subscriptions:write"),
    "payments": ("payments:read", "payments:write"),
    "loyalty": ("loyalty:read",),
    "analytics": ("analytics:read",),
}
KEY_BYTES = (
    32  # 256 bits from the system's generator: nothing to guess, so a plain SHA-256 is enough
)


class ApiKey(Base):
    __tablename__ = "api_keys"

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256 of the key
    name: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@dataclass(frozen=True)
class Caller:
    """Who is asking: the key's name stands in every record of what was done with it."""

    name: str
    scopes: frozenset[str]


ANONYMOUS = Caller("anonymous", frozenset())
_bearer = HTTPBearer(auto_error=False, description="An API key made with `farebox keys create`")


async def create_key(session: AsyncSession, service: str, name: str, scopes: list[str]) -> str:
    """Store a new key and return it; it cannot be shown again.  Raises InvalidInput."""
    unknown = sorted(set(scopes) - set(SCOPES[service]))
    if unknown or not scopes:
        raise InvalidInput(
            f"unknown scopes {unknown}; {service} knows {', '.join(SCOPES[service])}"
        )
    if await session.scalar(select(ApiKey.name).where(ApiKey.name == name)):
        raise InvalidInput(f"a key named {name!r} exists already; choose another name")
    key = f"fbx_{secrets.token_urlsafe(KEY_BYTES)}"
    session.add(ApiKey(digest=_digest(key), name=name, scopes=sorted(set(scopes))))
    return key


async def caller_of(session: AsyncSession, key: str) -> Caller:
    """Raises Unauthorized for a key that is unknown or revoked."""
    found = await session.get(ApiKey, _digest(key))
    if found is None or found.revoked_at is not None:
        raise Unauthorized(
            "This API key is unknown or revoked; make one with `farebox keys create`"
        )
    return Caller(found.name, frozenset(found.scopes))


def require(scope: str, *, always: bool = True) -> Callable[..., Awaitable[Caller]]:
    """A dependency that admits callers with `scope`.

    Routes with `always=False` (reading payments, points and numbers) ask for a key only where
    FAREBOX_REQUIRE_KEYS is set.
    """

    async def check(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        if credentials is None:
            if not always and not request.app.state.settings.farebox_require_keys:
                return ANONYMOUS
            raise Unauthorized("Send an API key: Authorization: Bearer fbx_…")
        sessions: Sessions = request.app.state.sessions
        async with sessions() as session:
            caller = await caller_of(session, credentials.credentials)
        if scope not in caller.scopes:
            raise ScopeMissing(
                f"this needs the scope {scope}; the key {caller.name!r} has {sorted(caller.scopes)}",
                scope=scope,
            )
        return caller

    check.__name__ = f"require_{scope.replace(':', '_')}"
    return check


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
