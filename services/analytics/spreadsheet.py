"""Daily numbers as CSV (RFC 4180), safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Sequence

from pydantic import BaseModel
from starlette.responses import Response

from shared.spreadsheet import cell

MEDIA_TYPE = "text/csv"


def wants_csv(accept: str) -> bool:
    """Whether an Accept header likes CSV better than JSON."""
    liked = dict(map(_liking, accept.split(",")))
    json_liking = liked.get("application/json", liked.get("application/*", liked.get("*/*", 0.0)))
    return liked.get(MEDIA_TYPE, liked.get("text/*", 0.0)) > json_liking


def csv_response(name: str, columns: Sequence[str], items: Sequence[BaseModel]) -> Response:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for item in items:
        values = item.model_dump(mode="json")
        writer.writerow([cell(values[column]) for column in columns])
    disposition = f'attachment; filename="{name}.csv"'
    return Response(
        out.getvalue(), media_type=MEDIA_TYPE, headers={"Content-Disposition": disposition}
    )


def _liking(part: str) -> tuple[str, float]:
    """`text/csv;q=0.5` as the media type and how much it is liked; what cannot be read is not."""
    media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
    try:
        return media_type, float(quality)
    except ValueError:
        return media_type, 0.0
