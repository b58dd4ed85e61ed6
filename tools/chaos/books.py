"""The client's books against the databases: what it was told against what is so."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import psycopg

from servicekit.timestamps import rfc3339
from tools.chaos.client import Answer, Load, Order

SLOW_SECONDS = 2.0
_FINAL = {"CONFIRMED", "REJECTED", "CANCELLED"}


@dataclass
class Findings:
    """What is wrong, in sentences, by kind."""

    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatch: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    retold: list[str] = field(default_factory=list)
    """Orders under a key that were answered with the time of another attempt than is stored."""
    recovered: int = 0
    """Orders that are stored and whose client was not told so. Nothing is wrong with these."""


def compare(load: Load, environment: Mapping[str, str]) -> Findings:
    """Compare what a client was told with what is stored."""
    found, products = Findings(), [*load.plentiful, *load.scarce]
    query = """
        SELECT product_id::text, quantity, id::text, total_price, created_at, status
        FROM "order" WHERE product_id = ANY(%s::uuid[])
    """
    stored = defaultdict(list)
    with psycopg.connect(environment["ORDERS_DATABASE_URL"]) as orders:
        for product, quantity, *facts in orders.execute(query, [products]):
            stored[product, quantity].append(facts)
    for order in load.orders:
        _compare_order(found, order, stored.pop((order.product, order.quantity), []))
    for what, rows in stored.items():
        found.unexpected.append(f"{len(rows)} orders {what} that nobody sent")
    query = """
        SELECT idempotency_key, count(*) FROM stock_movement
        WHERE product_id = ANY(%s::uuid[]) AND reason = 'restock' GROUP BY 1
    """
    with psycopg.connect(environment["PRODUCTS_DATABASE_URL"]) as database:
        moved: dict[str, int] = dict(database.execute(query, [products]).fetchall())
    for key, outcomes in load.restocks.items():
        _compare_restock(found, key, {*outcomes}, moved.pop(key, 0))
    found.unexpected += [f"a restock {key} that nobody sent" for key in moved]
    return found


def _compare_order(found: Findings, order: Order, rows: list[list[Any]]) -> None:
    told = {each.body["id"]: each.body for each in order.placed if each.outcome == "accepted"}
    name = f"{order.quantity} of {order.product} ({order.key or 'no key'})"
    if len(rows) > 1 or len(told) > 1:
        found.doubled.append(f"order {name} is {sorted({*told, *(row[0] for row in rows)})}")
    for missing in told.keys() - {row[0] for row in rows}:
        found.lost.append(f"order {missing} of {name}")
    if not rows:
        return
    identity, total, created_at, status = rows[0]
    if not told:
        if all(each.outcome == "refused" for each in order.placed):
            found.unexpected.append(f"order {identity} of {name} was refused")
        else:
            found.recovered += 1
    facts = {
        "id": identity,
        "productId": order.product,
        "quantity": order.quantity,
        "totalPrice": total,
        "createdAt": rfc3339(created_at),
    }
    for body in (each.body for each in order.placed if each.outcome == "accepted"):
        names = (body.keys() | facts.keys()) - {"status"}
        if differing := {name for name in names if body.get(name) != facts.get(name)}:
            is_retold = order.key is not None and differing == {"createdAt"}
            kind = found.retold if is_retold else found.mismatch
            kind.append(f"{body} was answered, and is stored as {facts}")
    _compare_status(found, order, identity, status)


def _compare_status(found: Findings, order: Order, identity: str, status: str) -> None:
    if status == "CANCELLED" and not order.cancelled:
        found.unexpected.append(f"order {identity} is CANCELLED, and nobody has cancelled it")
    for answer in order.cancelled:
        if answer.status == 200 and status != "CANCELLED":
            found.mismatch.append(f"order {identity} was cancelled, and is {status}")
        elif answer.status == 409 and status != "REJECTED":
            found.mismatch.append(f"order {identity} was called REJECTED, and is {status}")
    for answer in (*order.read, *order.cancelled):
        if answer.status == 404:
            found.mismatch.append(f"order {identity} was accepted, and then not found")
    for answer in order.read:
        seen = answer.body["status"] if answer.status == 200 else None
        if seen in _FINAL - {status, "CONFIRMED"} or (
            seen == "CONFIRMED" and status not in {"CONFIRMED", "CANCELLED"}
        ):
            found.mismatch.append(f"order {identity} was {seen}, and is {status}")


def _compare_restock(found: Findings, key: str, outcomes: set[str], times: int) -> None:
    if times > 1:
        found.doubled.append(f"restock {key} was made {times} times")
    elif not times and "accepted" in outcomes:
        found.lost.append(f"restock {key}")
    elif times and outcomes == {"refused"}:
        found.unexpected.append(f"restock {key} was refused")
    found.recovered += times == 1 and "accepted" not in outcomes


def slow(answers: list[Answer]) -> list[str]:
    """Return the answers that took too long, the longest first."""
    longest_first = sorted(answers, key=attrgetter("seconds"), reverse=True)
    return [
        f"{each.request}: {each.status} after {each.seconds:.1f} s"
        for each in longest_first
        if each.seconds > SLOW_SECONDS
    ]


def wrongly_refused(load: Load) -> list[str]:
    """Return the orders that got no 201 though nothing was wrong with them."""
    return [
        f"order of {order.quantity}: {each.status or 'no answer'} {each.body or ''}"
        for order in load.orders
        for each in order.placed
        if each.status != 201 and not (each.status == 400 and order.product in load.scarce)
    ]
