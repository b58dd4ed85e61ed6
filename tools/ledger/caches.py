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
    check = report.add("cached products = database")
    query = """
        SELECT id::text, name, price, qty, created_at, version FROM product
        WHERE id = ANY(%s::uuid[]) AND archived_at IS NULL
    """

    def differing(ids: Sequence[str]) -> dict[str, str]:
        # Redis first: what is committed after it was read is newer than the copy, and then the
        # second look decides.
        cached = values(servers, [f"product:{one}" for one in ids])
        versions = values(servers, [f"product:{one}:version" for one in ids])
        rows = {row[0]: row[1:] for row in servers.products.now(query, list(ids))}
        found: dict[str, str] = {}
        for product_id, body, version in zip(ids, cached, versions, strict=True):
            if body is None:
                continue
            if product_id not in rows:
                found[product_id] = "is cached and not sold"
                continue
            name, price, qty, created_at, row_version = rows[product_id]
            expected = {
                "id": product_id,
                "name": name,
                "price": price,
                "qty": qty,
                "createdAt": rfc3339(created_at),
            }
            if _decoded(body) != expected:
                found[product_id] = (
                    f"is cached as {_short(body)}, stored as {_short(json.dumps(expected))}"
                )
            elif version != str(row_version).encode():
                found[product_id] = (
                    f"is cached as version {_short(version)}, stored as version {row_version}"
                )
        return found

    _compare_cached(check, servers, "product", "copies", differing)


def check_catalog(report: Report, servers: Servers, ages: Ages) -> None:
    """Compare the order service's copies of products with their rows."""
    check = report.add("catalog copies = database")
    query = """
        SELECT id::text, name, price, qty, version FROM product
        WHERE id = ANY(%s::uuid[]) AND archived_at IS NULL
    """

    def differing(ids: Sequence[str]) -> dict[str, str]:
        # Redis first, as above.
        cached = values(servers, [f"catalog:{one}" for one in ids])
        rows = {row[0]: row for row in servers.products.now(query, list(ids))}
        found: dict[str, str] = {}
        for product_id, body in zip(ids, cached, strict=True):
            copy = None if body is None else _decoded(body)
            if copy is None:
                continue
            if not isinstance(copy, dict) or type(copy.get("asOf")) is not int:
                found[product_id] = f"has {_short(body)} in the catalog"
                continue
            age = time.time() - copy["asOf"]
            if age > ages.longest.total_seconds():
                # No order is priced by it any more.
                continue
            shown = [copy.get(name) for name in ("id", "name", "price", "qty", "version")]
            row = rows.get(product_id)
            if row is None:
                found[product_id] = "is in the catalog and not sold"
            # The version is that of the last change but of the stock.
            elif (
                shown[:4] != list(row[:4])
                or not isinstance(shown[4], int)
                or shown[4] > row[4]
                or age < -ALLOWANCE.total_seconds()
            ):
                found[product_id] = (
                    f"is in the catalog as {_short(body)}, stored as {_short(json.dumps(row))}"
                )
        return found

    _compare_cached(check, servers, "catalog", "copies", differing)


def check_cached_lists(report: Report, servers: Servers) -> None:
    """Compare the first page of every cached list with the orders of its product."""
    check = report.add("cached order lists = database")
    query = f"""
        SELECT wanted.id::text, o.id::text, o.quantity, o.total_price, o.status, o.created_at
        FROM unnest(%s::uuid[]) AS wanted (id)
        CROSS JOIN LATERAL (
            SELECT * FROM "order" WHERE product_id = wanted.id
            ORDER BY created_at DESC, id DESC LIMIT {PAGE_SIZE}
        ) o
        ORDER BY wanted.id, o.created_at DESC, o.id DESC
    """

    def differing(ids: Sequence[str]) -> dict[str, str]:
        cached = values(servers, [f"orders:{one}" for one in ids])
        pages: dict[str, list[dict[str, Any]]] = {one: [] for one in ids}
        for row in servers.orders.now(query, list(pages)):
            pages[row[0]].append(
                {
                    "id": row[1],
                    "productId": row[0],
                    "quantity": row[2],
                    "totalPrice": row[3],
                    "status": row[4],
                    "createdAt": rfc3339(row[5]),
                }
            )
        return {
            product_id: f"has a cached list that {_unlike(_decoded(body), pages[product_id])}"
            for product_id, body in zip(ids, cached, strict=True)
            if body is not None and _decoded(body) != pages[product_id]
        }

    _compare_cached(check, servers, "orders", "lists", differing)


def _unlike(cached: object, stored: Sequence[Mapping[str, Any]]) -> str:
    """Say how a cached list differs from the one of the database."""
    if not isinstance(cached, list):
        return "is no JSON array"
    if len(cached) != len(stored):
        return f"has {len(cached)} orders, not {len(stored)}"
    at, copy, row = next(
        (at, copy, row)
        for at, (copy, row) in enumerate(zip(cached, stored, strict=True), start=1)
        if copy != row
    )
    return f"has as order {at} {_short(json.dumps(copy))}, not {_short(json.dumps(row))}"


def _compare_cached(
    check: Check,
    servers: Servers,
    prefix: str,
    what: str,
    differing: Callable[[Sequence[str]], dict[str, str]],
) -> None:
    """Compare all that is cached under a prefix, and look twice at what differs."""
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


def _short(text: str | bytes | None) -> str:
    if text is None:
        return "nothing"
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    # What is cached is not ours alone to write: a terminal must not be steered by it.
    text = "".join(one if one.isprintable() else "�" for one in text)
    longest = 240
    return text if len(text) <= longest else f"{text[:longest]}…"
