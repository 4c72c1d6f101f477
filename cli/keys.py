"""`farebox keys`: API keys, shown once and stored hashed."""

import asyncio
import json
from typing import Annotated

import typer
from sqlalchemy import func, select, update

from cli.arguments import AsJson
from cli.database import transaction_of
from cli.edge import current_settings, show
from shared.api_keys import SCOPES, ApiKey, create_key
from shared.errors import NotFound
from shared.settings import Service as ServiceName
from shared.settings import Settings

keys = typer.Typer(help="API keys of the services.", no_args_is_help=True)

Service = Annotated[ServiceName, typer.Option(help="Whose key it is.")]
Name = Annotated[str, typer.Option(help="Whose hand it is in; stands in every record.")]
Scope = Annotated[
    list[str] | None,
    typer.Option(help="What it may do; may be given several times.  Default: all of the service."),
]


@keys.command()
def create(service: Service, name: Name, scope: Scope = None, as_json: AsJson = False) -> None:
    """Make a key and print it; it cannot be shown again."""
    scopes = scope or list(SCOPES[service])
    key = asyncio.run(make_key(current_settings(), service, name, scopes))
    if as_json:
        print(json.dumps({"key": key, "service": service, "name": name, "scopes": scopes}))
    else:
        print(key)


@keys.command("list")
def list_keys(service: Service, as_json: AsJson = False) -> None:
    """Names and scopes, never the keys."""
    rows = asyncio.run(_list(current_settings(), service))
    show(rows, as_json=as_json, empty=f"{service} has no keys")


@keys.command()
def revoke(service: Service, name: Name) -> None:
    """Refuse a key from now on."""
    asyncio.run(_revoke(current_settings(), service, name))
    print(f"{name}: revoked")


async def make_key(settings: Settings, service: str, name: str, scopes: list[str]) -> str:
    async with transaction_of(settings, service) as session:
        return await create_key(session, service, name, scopes)


async def _list(settings: Settings, service: str) -> list[dict[str, object]]:
    async with transaction_of(settings, service) as session:
        found = (await session.scalars(select(ApiKey).order_by(ApiKey.created_at))).all()
    return [
        {
            "name": key.name,
            "scopes": key.scopes,
            "created_at": key.created_at.isoformat(),
            "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        }
        for key in found
    ]


async def _revoke(settings: Settings, service: str, name: str) -> None:
    """A key that is revoked already stays as it is."""
    async with transaction_of(settings, service) as session:
        known = await session.scalar(select(ApiKey.name).where(ApiKey.name == name))
        if known is None:
            raise NotFound(f"{service} has no key named {name!r}; see `farebox keys list`")
        await session.execute(
            update(ApiKey)
            .where(ApiKey.name == name, ApiKey.revoked_at.is_(None))
            .values(revoked_at=func.now())
        )
