"""Topics are created explicitly: partitions are chosen at birth, retention is long enough to rebuild from."""

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from shared.events import TOPICS

# For ever: a new consumer rebuilds from the beginning, and loyalty's points never lapse from the log.
RETENTION_MS = -1


def topic_name(prefix: str, topic: str) -> str:
    return f"{prefix}.{topic}"


async def create_topics(
    bootstrap_servers: str, prefix: str, *, partitions: int = 12, replication: int = 1
) -> list[str]:
    """Create what is missing and return the names of the topics made.  Raises KafkaError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        response = await admin.create_topics(
            [
                NewTopic(
                    name=topic_name(prefix, topic),
                    num_partitions=partitions,
                    replication_factor=replication,
                    topic_configs={"retention.ms": str(RETENTION_MS)},
                )
                for topic in TOPICS
            ]
        )
    finally:
        await admin.close()
    made = []
    for name, code, *_ in response.topic_errors:
        if code == 0:
            made.append(name)
        elif for_code(code) is not TopicAlreadyExistsError:
            raise for_code(code)(f"topic {name}")
    return made
