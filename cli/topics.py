"""`farebox topics`: Kafka's topics, made explicitly."""

import asyncio

import typer

from cli.edge import current_settings
from shared.topics import create_topics

topics = typer.Typer(help="Kafka's topics.", no_args_is_help=True)


@topics.command()
def create() -> None:
    """Create the topics that are missing; those there are stay as they are."""
    settings = current_settings()
    made = asyncio.run(
        create_topics(
            settings.kafka_bootstrap_servers,
            settings.farebox_topic_prefix,
            partitions=settings.farebox_topic_partitions,
            replication=settings.farebox_topic_replication,
        )
    )
    print("\n".join(made) if made else "all topics are there")
