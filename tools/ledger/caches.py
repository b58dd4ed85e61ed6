"""What Redis shows against what PostgreSQL knows."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from servicekit.timestamps import rfc3339
from tools.ledger.prices import ALLOWANCE, Ages
from tools.ledger.report import Check, Report
from tools.ledger.servers import LOOK_AGAIN_SECONDS, Servers, values

#: The first page of a list of orders.
PAGE_SIZE = 50


def check_cached_products(report: Report, servers: Servers) -> None:
    """Compare every cached product, and its version, with its row."""

    def unlike(body: bytes, version: bytes | None, row: Sequence[Any] | None) -> str | None:
        if row is None:
            return "is cached and not sold"
        *facts, stored, created_at = row
        shown = dict(zip(("id", "name", "price", "qty"), facts, strict=True))
        expected = {**shown, "createdAt": rfc3339(created_at)}
        if _decoded(body) != expected:
            return f"is cached as {_short(body)}, stored as {_short(expected)}"
        if version != str(stored).encode():
            return f"is cached as version {_short(version)}, stored as version {stored}"
        return None

    check = report.add("cached products = database")
    _compare_cached(check, servers, "product", lambda ids: _sold(servers, ids), unlike)


def check_catalog(report: Report, servers: Servers, ages: Ages) -> None:
    """Compare the order service's copies of products with their rows."""

    def unlike(body: bytes, _version: object, row: Sequence[Any] | None) -> str | None:
        copy = _decoded(body)
        if copy is None:
            return None
        if not isinstance(copy, dict) or type(copy.get("asOf")) is not int:
            return f"has {_short(body)} in the catalog"
        age = time.time() - copy["asOf"]
        if age > ages.longest.total_seconds():
            return None  # No order is priced by it any more.
        if row is None:
            return "is in the catalog and not sold"
        shown = [copy.get(name) for name in ("id", "name", "price", "qty")]
        version, is_early = copy.get("version"), age < -ALLOWANCE.total_seconds()
        # The version is that of the last change but of the stock.
        is_known = isinstance(version, int) and version <= row[4]
        if shown == list(row[:4]) and is_known and not is_early:
            return None
        return f"is in the catalog as {_short(body)}, stored as {_short(row[:5])}"

    check = report.add("catalog copies = database")
    _compare_cached(check, servers, "catalog", lambda ids: _sold(servers, ids), unlike)


def check_cached_lists(report: Report, servers: Servers) -> None:
    """Compare the first page of every cached list with the orders of its product."""
    query = f"""
        SELECT o.id::text, wanted.id::text, o.quantity, o.total_price, o.status, o.created_at
        FROM unnest(%s::uuid[]) AS wanted (id)
        CROSS JOIN LATERAL (
            SELECT * FROM "order" WHERE product_id = wanted.id
            ORDER BY created_at DESC, id DESC LIMIT {PAGE_SIZE}
        ) o
        ORDER BY wanted.id, o.created_at DESC, o.id DESC
    """

    def stored(ids: list[str]) -> Mapping[str, Any]:
        pages: dict[str, list[dict[str, Any]]] = {one: [] for one in ids}
        names = ("id", "productId", "quantity", "totalPrice", "status")
        for *facts, created_at in servers.orders.now(query, ids):
            shown = dict(zip(names, facts, strict=True))
            pages[shown["productId"]].append({**shown, "createdAt": rfc3339(created_at)})
        return pages

    def unlike(body: bytes, _version: object, page: Sequence[Any]) -> str | None:
        cached = _decoded(body)
        if cached == page:
            return None
        if not isinstance(cached, list):
            return "has a cached list that is no JSON array"
        if len(cached) != len(page):
            return f"has a cached list that has {len(cached)} orders, not {len(page)}"
        at = next(at for at, row in enumerate(page) if cached[at] != row)
        return (
            f"has a cached list that has as order {at + 1} {_short(json.dumps(cached[at]))}, "
            f"not {_short(page[at])}"
        )

    check = report.add("cached order lists = database")
    _compare_cached(check, servers, "orders", stored, unlike, what="lists")


def _sold(servers: Servers, ids: list[str]) -> Mapping[str, Any]:
    query = """
        SELECT id::text, name, price, qty, version, created_at FROM product
        WHERE id = ANY(%s::uuid[]) AND archived_at IS NULL
    """
    return {row[0]: row for row in servers.products.now(query, ids)}


def _compare_cached(
    check: Check,
    servers: Servers,
    prefix: str,
    stored: Callable[[list[str]], Mapping[str, Any]],
    unlike: Callable[[bytes, bytes | None, Any], str | None],
    *,
    what: str = "copies",
) -> None:
    """Compare all that is cached under a prefix, and look twice at what differs.

    `stored` returns what is in the database by id, `unlike` says how a copy and its version differ.
    """

    def differing(ids: list[str]) -> dict[str, str]:
        # Redis first: what is committed after it was read is newer than the copy, and then the
        # second look decides.
        bodies = values(servers, [f"{prefix}:{one}" for one in ids])
        versions = values(servers, [f"{prefix}:{one}:version" for one in ids])
        rows = stored(ids)
        return {
            one: how
            for one, body, version in zip(ids, bodies, versions, strict=True)
            if body is not None and (how := unlike(body, version, rows.get(one)))
        }

    copies = 0
    for ids in servers.cached_ids(prefix):
        copies += len(ids)
        if suspects := differing(ids):
            # A copy is written after the commit; it may differ for the moment in between.
            time.sleep(LOOK_AGAIN_SECONDS)
            for product_id, how in differing(list(suspects)).items():
                seconds = servers.cache.ttl(f"{prefix}:{product_id}")
                check.differs(f"product {product_id} {how} (expires in {seconds} s)")
    check.compared = f"{copies:,} {what}"


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return body


def _short(one: object) -> str:
    """Write what was read as it is, and anything else as JSON, so that it fits a line."""
    if one is None:
        return "nothing"
    text = one.decode(errors="backslashreplace") if isinstance(one, bytes) else json.dumps(one)
    # What is cached is not ours alone to write: a terminal must not be steered by it.
    text = "".join(each if each.isprintable() else "�" for each in text)
    longest = 240
    return text if len(text) <= longest else f"{text[:longest]}…"
