"""Records are put where the producer's own `send`, and Kafka's Java client, would put them; what failed is told apart."""

from uuid import uuid4

import pytest
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from shared.cargo import Parcel, hash_of
from shared.relay import Load


@pytest.mark.parametrize("partitions", [1, 3, 12, 100])
def test_a_key_goes_to_the_partition_that_send_would_choose(partitions: int) -> None:
    places = list(range(partitions))
    for key in ("configs", "", "ключ", *(str(uuid4()) for _ in range(200))):
        assert hash_of(key) % partitions == DefaultPartitioner()(key.encode(), places, places)


def test_what_follows_a_failed_fact_of_its_customer_is_not_done_although_it_was_acknowledged() -> (
    None
):
    rows = [{"position": at, "aggregateid": key} for at, key in enumerate("abacb")]
    parcels = [parcel(0, 1), parcel(2, 3), parcel(4)]

    assert Load(rows, parcels).acknowledged([None, KafkaError(), None]) == [0, 1, 4]
    assert Load(rows, parcels).acknowledged([KafkaError(), None, None]) == [3]
    assert Load(rows, parcels).acknowledged([None, None, KafkaError()]) == [0, 1, 2, 3]


def parcel(*rows: int) -> Parcel:
    return Parcel("payments", 0, BatchBuilder(1_000, 0), list(rows))
