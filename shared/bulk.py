"""Many rows in one statement: each column travels as one array, whatever the number of rows."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ARRAY, TableValuedAlias, column, func, literal

from shared.db import Base


def listed(model: type[Base], rows: Sequence[Mapping[str, object]]) -> TableValuedAlias:
    """`rows` as a FROM clause with the types of `model`'s columns; all have the keys of the first.

    `insert(M).from_select(list(data.c.keys()), select(data))` and `update(M).where(M.id == data.c.id)` read it in
    its order.  Sent row by row, the same rows cost several times as much on either side.
    """
    columns = [model.__table__.c[name] for name in rows[0]]
    arrays = [literal([row[c.name] for row in rows], ARRAY(c.type)) for c in columns]
    typed = (column(c.name, c.type) for c in columns)
    return func.unnest(*arrays).table_valued(*typed).render_derived(name="listed")
