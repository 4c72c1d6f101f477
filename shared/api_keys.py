"""API keys: shown once, stored hashed, each with the scopes it was created for."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ARRAY, DateTime, String, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.errors import InvalidInput, Unauthorized

SCOPES = {
    "pricing": (
        *("pricing:read", "pricing:write", "pricing:approve", "pricing:notify"),
        *("subscriptions:read", "subscriptions:write"),
    ),
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


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
