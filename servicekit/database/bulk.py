"""The rows of a bulk statement, as its one parameter."""

from typing import Any

import msgspec


def as_json(rows: Any) -> str:
    """Return rows for `json_to_recordset(%s)`.

    psycopg's own way, an array for each column, costs more: it writes them element by element.
    """
    return msgspec.json.encode(rows).decode()
