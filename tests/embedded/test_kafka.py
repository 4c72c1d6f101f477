"""Kafka out of wheels and jars: up, down, topics kept, nothing left."""

from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from embedded import kafka
from embedded.errors import DiskFull, PortInUse
from embedded.kafka import EmbeddedKafka
from embedded.ports import is_in_use
from tests.embedded.conftest import processes_in


async def topics_of(bootstrap_servers: str) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        return sorted(await admin.list_topics())
    finally:
        await admin.close()


async def create_topic(bootstrap_servers: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])
    finally:
        await admin.close()


async def test_topics_outlive_a_stop_and_nothing_else_does(open_folder: Path) -> None:
    node = EmbeddedKafka(open_folder / "kafka")
    await create_topic(node.start(), "kept")
    port = int(node.bootstrap_servers.rsplit(":", 1)[1])
    node.stop()
    assert not is_in_use(port)
    assert processes_in(open_folder) == []
    with EmbeddedKafka(open_folder / "kafka") as again:
        assert await topics_of(again.bootstrap_servers) == ["kept"]
    assert processes_in(open_folder) == []


async def test_asking_for_a_topic_does_not_make_it(kafka_servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_servers)
    await admin.start()
    try:
        await admin.describe_topics(["nobody-made-this"])
    finally:
        await admin.close()
    assert "nobody-made-this" not in await topics_of(kafka_servers)


def test_a_wanted_port_in_use_is_named_with_what_to_set(
    open_folder: Path, kafka_servers: str
) -> None:
    taken = int(kafka_servers.rsplit(":", 1)[1])
    with pytest.raises(PortInUse, match=f"port {taken} .* FAREBOX_KAFKA_PORT"):
        EmbeddedKafka(open_folder / "kafka", port=taken).start()


def test_a_full_disk_is_said_before_anything_is_started(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "NEEDED_BYTES", 2**62)
    with pytest.raises(DiskFull, match="free some space"):
        EmbeddedKafka(open_folder / "kafka").start()
