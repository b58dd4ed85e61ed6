"""What orders were sold at, against the prices that their products had."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from deploy.settings import DEFAULTS
from servicekit.timestamps import rfc3339
from tools.ledger.report import Report
from tools.ledger.servers import Servers, side_by_side

#: A price is the old one until the commit that changes it, and clocks differ a little.
ALLOWANCE = timedelta(seconds=5)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)

Span = tuple[datetime, datetime]


class Ages(NamedTuple):
    """How old a price may be that an order is sold at: usually, and without the product service."""

    usual: timedelta
    longest: timedelta

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Self:
        """Read them from what is set in `.env`."""
        usual, without_source = (
            timedelta(seconds=math.ceil(float(settings.get(name) or DEFAULTS[name])))
            for name in ("PRICE_MAX_AGE_SECONDS", "PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS")
        )
        return cls(usual, max(usual, without_source))


class _Sale(NamedTuple):
    """The orders of a product that were sold at one price."""

    product_id: str
    price: int
    first: datetime
    last: datetime


class _History(NamedTuple):
    """The prices that a product had, the oldest first, and its present one."""

    price: int
    created_at: datetime
    prices: Sequence[int]
    since: Sequence[datetime]

    def spans(self, price: int, age: timedelta) -> list[Span]:
        """Return when orders could be placed at a price that may be so old."""
        until = [*self.since[1:], _END]
        spans = [
            (begin - ALLOWANCE, end + age + ALLOWANCE if end < _END else end)
            for one, begin, end in zip(self.prices, self.since, until, strict=True)
            if one == price
        ]
        if self.since[0] > self.created_at:
            # What it cost before its history began, nobody knows any more.
            spans.append((_BEGINNING, self.since[0] + age))
        return spans


def check_totals(report: Report, servers: Servers) -> None:
    """See that every total is a multiple of its quantity."""
    check = report.add("total price = quantity x a price")
    query = 'SELECT count(*), coalesce(sum(total_price), 0) FROM "order"'
    orders, total = servers.orders.one(query)
    check.compared = f"{orders:,} orders of {total:,} in total"
    query = """
        SELECT id, quantity, total_price FROM "order"
        WHERE total_price <= 0 OR total_price % quantity <> 0 ORDER BY id
    """
    for order_id, quantity, total_price in servers.orders.stream(query):
        check.differs(f"order {order_id}: {quantity:,} units for {total_price:,}")


def check_history(report: Report, servers: Servers, ages: Ages) -> None:
    """See that every order was sold at a price that its product had, and not too long before."""
    sold = report.add("orders were sold at prices of their time")
    kept = report.add("each product has the last price of its history")
    usual = f"{ages.usual.total_seconds():.0f} s"
    late = report.add(f"orders sold at a price over {usual} old", is_note=True)
    # Of a product that had one price, and orders at no other, no order has to be looked at.
    sales = servers.orders.stream(
        """
        SELECT product_id::text, array_agg(price), array_agg(first), array_agg(last), sum(orders)
        FROM (
            SELECT product_id, total_price / quantity AS price,
                   min(created_at) AS first, max(created_at) AS last, count(*) AS orders
            FROM "order" WHERE total_price % quantity = 0 GROUP BY 1, 2
        ) sale
        GROUP BY 1 ORDER BY 1
        """
    )
    histories = servers.products.stream(
        """
        SELECT p.id::text, p.price, p.created_at, array_agg(h.price ORDER BY h.id),
               array_agg(h.since ORDER BY h.id)
        FROM product p LEFT JOIN product_price h ON h.product_id = p.id
        GROUP BY p.id ORDER BY 1
        """
    )
    orders = products = 0
    for product_id, sale, found in side_by_side(sales, histories):
        if found is None:
            continue
        history = _History(*found)
        products += 1
        last = history.prices[-1]
        if last != history.price:
            kept.differs(f"product {product_id} costs {history.price}, by its history {last}")
        if sale is None or history.since[0] is None:
            continue
        orders += int(sale[3])
        for one in map(_Sale, [product_id] * len(sale[0]), *sale[:3]):
            before = sold.count
            for order in _sold_outside(servers, one, history.spans(one.price, ages.longest)):
                sold.differs(order)
            if sold.count == before:
                for order in _sold_outside(servers, one, history.spans(one.price, ages.usual)):
                    late.differs(order)
    sold.compared = f"{orders:,} orders of {products:,} products"
    kept.compared = f"{products:,} products"
    late.compared = f"{late.count:,} orders"


def _sold_outside(servers: Servers, sale: _Sale, spans: Sequence[Span]) -> Iterator[str]:
    """Yield, in words, the orders of a sale that were placed at none of these times."""
    if any(begin <= sale.first and sale.last <= end for begin, end in spans):
        return
    query = """
        SELECT id, created_at FROM "order"
        WHERE product_id = %s AND total_price / quantity = %s AND total_price %% quantity = 0
          AND NOT EXISTS (
              SELECT FROM unnest(%s::timestamptz[], %s::timestamptz[]) AS span (begins, ends)
              WHERE created_at BETWEEN begins AND ends
          )
        ORDER BY id
    """
    begins, ends = [span[0] for span in spans], [span[1] for span in spans]
    parameters = (sale.product_id, sale.price, begins, ends)
    for order_id, created_at in servers.orders.stream(query, *parameters):
        yield (
            f"order {order_id} of {rfc3339(created_at)} was sold at {sale.price}, which was not the"
            f" price of product {sale.product_id} then"
        )
