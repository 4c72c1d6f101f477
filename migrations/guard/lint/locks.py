"""PostgreSQL's table locks, weakest first, and which of them each ALTER TABLE takes (proved in tests/guard/lint)."""

from enum import IntEnum

from postgast import pg_query_pb2 as pg


class Mode(IntEnum):
    """pg_locks' names; from SHARE on, others cannot write; under ACCESS EXCLUSIVE they cannot read."""

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def stops(self) -> str:
        return "reads and writes" if self is Mode.ACCESS_EXCLUSIVE else "writes"

    def __str__(self) -> str:
        return self.name.replace("_", " ")


GENTLE = frozenset(
    {
        pg.AT_ValidateConstraint,
        pg.AT_SetStatistics,
        pg.AT_SetOptions,
        pg.AT_ResetOptions,
        pg.AT_SetRelOptions,
        pg.AT_ResetRelOptions,
        pg.AT_ClusterOn,
        pg.AT_DropCluster,
        pg.AT_AttachPartition,
        pg.AT_DetachPartitionFinalize,
    }
)
WRITES_ONLY = frozenset(
    {
        pg.AT_EnableTrig,
        pg.AT_EnableAlwaysTrig,
        pg.AT_EnableReplicaTrig,
        pg.AT_EnableTrigAll,
        pg.AT_EnableTrigUser,
        pg.AT_DisableTrig,
        pg.AT_DisableTrigAll,
        pg.AT_DisableTrigUser,
    }
)


def of_command(command: pg.AlterTableCmd) -> Mode:
    kind = command.subtype
    definition: pg.Node = getattr(command, "def")
    if kind in GENTLE:
        return Mode.SHARE_UPDATE_EXCLUSIVE
    if kind in WRITES_ONLY:
        return Mode.SHARE_ROW_EXCLUSIVE
    if kind == pg.AT_AddConstraint and definition.constraint.contype == pg.CONSTR_FOREIGN:
        return Mode.SHARE_ROW_EXCLUSIVE
    if kind == pg.AT_DetachPartition and definition.partition_cmd.concurrent:
        return Mode.SHARE_UPDATE_EXCLUSIVE
    return Mode.ACCESS_EXCLUSIVE
