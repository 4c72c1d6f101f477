"""What follows a migration: passwords of the services' roles, the default price, Kafka's topics.

Every step may run again and changes nothing where its work is done.
"""

import asyncio
from collections.abc import Iterator

import psycopg
from aiokafka.errors import KafkaError
from psycopg import Connection, sql
from sqlalchemy.engine import make_url

from migrations.faults import CannotReach
from services.pricing.defaults import create_default_config
from shared.clock import utc_now
from shared.db import SERVICES, create_engine, create_sessions
from shared.settings import Settings
from shared.topics import create_topics

# A broker that starts together with the job needs some seconds; one that is away for longer is down.
KAFKA_PATIENCE_SECONDS = 60.0
KAFKA_RETRY_SECONDS = 1.0


def set_passwords(connection: Connection, settings: Settings) -> Iterator[str]:
    """Give each service's role the password its URL carries; yields a line for each, also if it could not."""
    for service in SERVICES:
        url = make_url(settings.url_of(service))
        given = getattr(settings, f"{service}_database_url") is not None
        if not given or url.password is None or url.username is None:
            continue
        role = url.username
        try:
            _set_password(connection, role, str(url.password))
        except psycopg.Error as error:
            reason = " ".join(str(error.diag.message_primary or error).split())
            yield f"WARNING: the password of role {role} was not set: {reason}"
        else:
            yield f"password of role {role} set"


def _set_password(connection: Connection, role: str, password: str) -> None:
    """Only the verifier travels: a statement log never sees the password."""
    verifier = connection.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    )
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(role), sql.Literal(verifier.decode())))


def default_config(settings: Settings) -> str:
    version = asyncio.run(_default_config(settings.database_url))
    if version is None:
        return "price versions are there"
    return f"default price version {version} created"


async def _default_config(database_url: str) -> int | None:
    engine = create_engine(database_url, "pricing", pool_size=1)
    try:
        async with create_sessions(engine).begin() as session:
            return await create_default_config(session, utc_now())
    finally:
        await engine.dispose()


def topics(settings: Settings, *, patience_seconds: float = KAFKA_PATIENCE_SECONDS) -> str:
    """Create the topics that are missing.  Raises CannotReach when no broker answers in time."""
    servers = settings.kafka_bootstrap_servers
    made = asyncio.run(_topics(settings, patience_seconds))
    return f"{len(made)} topics created on {servers}" if made else f"topics are there on {servers}"


async def _topics(settings: Settings, patience_seconds: float) -> list[str]:
    last: Exception | None = None
    try:
        async with asyncio.timeout(patience_seconds):
            while True:
                try:
                    return await create_topics(
                        settings.kafka_bootstrap_servers,
                        settings.farebox_topic_prefix,
                        partitions=settings.farebox_topic_partitions,
                        replication=settings.farebox_topic_replication,
                    )
                except (KafkaError, OSError) as error:
                    last = error
                    await asyncio.sleep(KAFKA_RETRY_SECONDS)
    except TimeoutError:
        raise CannotReach(
            f"cannot create topics on {settings.kafka_bootstrap_servers}:"
            f" {last or f'no answer within {patience_seconds:.0f} s'}"
        ) from last
