"""How PostgreSQL reads what a page asks for."""

import json
import re
from collections.abc import Iterator
from typing import Any

from django.db import connection


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def scans_of(table: str, queries: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Run what a page asked of a table again, and return how PostgreSQL read it."""
    found = []
    for query in queries:
        sql = query["sql"]
        if not re.search(rf"\b{table}\b", sql) or not sql.lstrip().upper().startswith(
            ("SELECT", "WITH")
        ):
            continue
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + sql.replace("%", "%%"), [])
            [answer] = cursor.fetchone()
        [explained] = answer if isinstance(answer, list) else json.loads(answer)
        found += [
            {**node, "sql": sql}
            for node in _nodes(explained["Plan"])
            if node.get("Relation Name") == table or table in node.get("Index Name", "")
        ]
    return found


def assert_frugal(scans: list[dict[str, Any]]) -> None:
    """A page reads no more than its sample or its count is capped to, and by an index."""
    assert scans, "the page did not look at the table at all"
    for scan in scans:
        assert scan["Node Type"] != "Seq Scan", scan["sql"]
        assert rows_read(scan) <= 50_000, scan["sql"]


def rows_read(scan: dict[str, Any]) -> int:
    read = scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)
    return int((read + scan.get("Rows Removed by Index Recheck", 0)) * scan["Actual Loops"])
