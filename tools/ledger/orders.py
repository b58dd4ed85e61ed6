"""Orders against the reservations of their stock, row by row."""

from collections.abc import Sequence
from typing import Any

from servicekit.timestamps import rfc3339
from tools.ledger.report import Check, Report
from tools.ledger.servers import IS_OURS, ORDER_UUID, Servers, in_batches, side_by_side

#: What an order's stock can have become, by the status of the order.
OUTCOMES_OF_STATUS = {
    "CONFIRMED": ("RESERVED",),
    "REJECTED": ("REJECTED",),
    # Cancelled after its stock was decided either way, or before.
    "CANCELLED": ("RELEASED", "REJECTED", "CANCELLED"),
}


def check_statuses(report: Report, servers: Servers) -> None:
    """See that no order still waits for its stock."""
    check = report.add("every order is final")
    total, unfinished = servers.orders.one(
        """SELECT count(*), count(*) FILTER (WHERE status = 'PENDING') FROM "order" """
    )
    check.compared = f"{total:,} orders"
    if unfinished:
        query = """SELECT id, created_at FROM "order" WHERE status = 'PENDING' ORDER BY id"""
        for order_id, created_at in servers.orders.stream(query):
            check.differs(f"order {order_id} is PENDING since {rfc3339(created_at)}")


def check_figures(report: Report, servers: Servers) -> None:
    """Compare the figures of the dashboard with the orders, for each day that it shows."""
    check = report.add("figures of the dashboard = orders")
    check.compared = "30 days"
    query = """
        SELECT day::date, sum(pending), sum(confirmed), sum(rejected), sum(cancelled), sum(revenue)
        FROM (
            SELECT date_bin('1 day', start, 'epoch') AS day,
                pending, confirmed, rejected, cancelled, revenue
            FROM order_figures WHERE period IN (0, 86400)
            UNION ALL
            SELECT date_bin('1 day', created_at, 'epoch'), -(status = 'PENDING')::int,
                -(status = 'CONFIRMED')::int, -(status = 'REJECTED')::int,
                -(status = 'CANCELLED')::int, -(status = 'CONFIRMED')::int * total_price::numeric
            FROM "order"
        ) AS both_of_them
        WHERE day > now() - interval '30 days' GROUP BY day
        HAVING (sum(pending), sum(confirmed), sum(rejected), sum(cancelled), sum(revenue))
            <> (0, 0, 0, 0, 0)
        ORDER BY day
    """
    for day, *differences in servers.orders.stream(query):
        more = ", ".join(f"{number:+,}" for number in differences)
        check.differs(f"{day}: pending, confirmed, rejected, cancelled, revenue {more}")


def check_rows(report: Report, servers: Servers) -> None:
    """Compare each order with the reservation that was decided for it."""
    check = report.add("orders = reservations, row by row")
    orders = servers.orders.stream(
        """
        SELECT id::text, product_id::text, quantity, status, released_at IS NOT NULL
        FROM "order" ORDER BY id
        """
    )
    reservations = servers.products.stream(
        f"""
        SELECT ({ORDER_UUID})::text, product_id::text, quantity, outcome, order_id
        FROM reservation WHERE {IS_OURS} ORDER BY ({ORDER_UUID})
        """
    )
    compared = [0, 0]
    for order_id, order, reservation in side_by_side(orders, reservations):
        compared[0] += order is not None
        compared[1] += reservation is not None
        if order is not None and reservation is not None:
            _compare_decision(check, order_id, order, reservation)
        elif reservation is not None:
            check.differs(f"reservation {reservation[3]} ({reservation[2]}) has no order")
        # A pending order is undecided by right; that it is pending is another check's matter.
        elif order is not None and order[2] != "PENDING":
            check.differs(f"order {order_id} ({order[2]}) has no reservation")
    check.compared = f"{compared[0]:,} orders, {compared[1]:,} reservations"

    foreign = report.add("reservations of other order systems", is_note=True)
    count, units = servers.products.one(
        f"""
        SELECT count(*), coalesce(sum(quantity) FILTER (WHERE outcome = 'RESERVED'), 0)
        FROM reservation WHERE NOT ({IS_OURS})
        """
    )
    foreign.compared = f"{count:,} reservations, {units:,} units"
    foreign.count = count


def _compare_decision(
    check: Check, order_id: str, order: Sequence[Any], reservation: Sequence[Any]
) -> None:
    product_id, quantity, status, is_released = order
    if (product_id, quantity) != tuple(reservation[:2]):
        check.differs(
            f"order {order_id} is {quantity:,} of {product_id}, "
            f"its reservation {reservation[1]:,} of {reservation[0]}"
        )
    elif status != "PENDING" and reservation[2] not in OUTCOMES_OF_STATUS[status]:
        check.differs(f"order {order_id} is {status}, its reservation {reservation[2]}")
    elif is_released != (reservation[2] == "RELEASED"):
        known = "knows" if is_released else "does not know"
        check.differs(
            f"order {order_id} {known} that its stock was given back, "
            f"and its reservation is {reservation[2]}"
        )


def check_refusals(report: Report, servers: Servers) -> None:
    """See that whoever got nothing could get nothing."""
    check = report.add("no order refused while there was stock")
    [rejected] = servers.products.one("SELECT count(*) FROM reservation WHERE outcome = 'REJECTED'")
    check.compared = f"{rejected:,} rejected reservations"
    query = """
        SELECT order_id, quantity, stock_before FROM reservation
        WHERE outcome = 'REJECTED' AND reason = 'insufficient_stock' AND quantity <= stock_before
        ORDER BY order_id
    """
    for order_id, quantity, stock in servers.products.stream(query):
        check.differs(f"order {order_id} of {quantity:,} was refused with {stock:,} in stock")

    # Whether the product came before the order is known only with the order's own time.
    suspects = servers.products.stream(
        f"""
        SELECT ({ORDER_UUID})::text, r.order_id, p.id, p.created_at, r.created_at
        FROM reservation r JOIN product p ON p.id = r.product_id
        WHERE r.outcome = 'REJECTED' AND r.reason = 'product_not_found'
        ORDER BY r.order_id
        """
    )
    query = 'SELECT id::text, created_at FROM "order" WHERE id = ANY(%s::uuid[])'
    for batch in in_batches(suspects):
        placed = dict(servers.orders.now(query, [row[0] for row in batch if row[0] is not None]))
        for order_uuid, order_id, product_id, product_since, decided_at in batch:
            if product_since < placed.get(order_uuid, decided_at):
                check.differs(
                    f"order {order_id} was refused for want of product {product_id}, "
                    f"which is there since {rfc3339(product_since)}"
                )
