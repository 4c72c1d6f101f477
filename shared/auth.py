"""Who may call what over HTTP: a dependency for each scope."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.api_keys import Caller, caller_of
from shared.db import Sessions
from shared.errors import ScopeMissing, Unauthorized

ANONYMOUS = Caller("anonymous", frozenset())
_bearer = HTTPBearer(auto_error=False, description="An API key made with `farebox keys create`")


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
