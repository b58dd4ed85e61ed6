"""Stock against its movements, and movements against what orders took."""

from tools.ledger.report import Report
from tools.ledger.servers import IS_OURS, Servers, side_by_side


def check_stock(report: Report, servers: Servers) -> None:
    """See that each stock is the sum of its movements."""
    explained = report.add("stock = sum of its movements")
    products, movements = servers.products.one(
        "SELECT (SELECT count(*) FROM product), (SELECT count(*) FROM stock_movement)"
    )
    explained.compared = f"{products:,} products, {movements:,} movements"
    query = """
        SELECT p.id, p.qty, coalesce(m.total, 0)
        FROM product p
        LEFT JOIN (SELECT product_id, sum(delta) AS total FROM stock_movement GROUP BY 1) m
            ON m.product_id = p.id
        WHERE p.qty <> coalesce(m.total, 0)
        ORDER BY p.id
    """
    for product_id, qty, total in servers.products.stream(query):
        explained.differs(f"product {product_id} has {qty:,}, its movements sum to {total:,}")


def check_running_stock(report: Report, servers: Servers) -> None:
    """See that each movement began where the last one ended, and took what was there."""
    check = report.add("no stock was ever below zero")
    [movements] = servers.products.one("SELECT count(*) FROM stock_movement")
    check.compared = f"{movements:,} movements"
    # Ids are given under the lock of the product, so they are in the order of its changes.
    query = """
        SELECT product_id, id, qty_after, stock FROM (
            SELECT product_id, id, qty_after,
                   sum(delta) OVER (PARTITION BY product_id ORDER BY id) AS stock
            FROM stock_movement
        ) running
        WHERE qty_after <> stock OR stock < 0
        ORDER BY product_id, id
    """
    for product, movement, said, stock in servers.products.stream(query):
        check.differs(f"movement {movement} left {stock:,} of product {product}, and says {said:,}")


def check_units(report: Report, servers: Servers) -> None:
    """Compare the units that orders took with those of the confirmed orders."""
    check = report.add("units taken = units confirmed")
    taken = servers.products.stream(
        f"""
        SELECT moved.product_id::text, -sum(moved.delta)
        FROM stock_movement moved JOIN reservation USING (order_id)
        WHERE {IS_OURS} GROUP BY moved.product_id ORDER BY moved.product_id
        """
    )
    confirmed = servers.orders.stream(
        """
        SELECT product_id::text, sum(quantity) FROM "order"
        WHERE status = 'CONFIRMED' GROUP BY product_id ORDER BY product_id
        """
    )
    units = products = 0
    for product_id, stock, sold in side_by_side(taken, confirmed):
        left, right = (int(one[0]) if one else 0 for one in (stock, sold))
        units += right
        products += 1
        if left != right:
            check.differs(f"product {product_id}: {left:,} units taken, {right:,} confirmed")
    check.compared = f"{units:,} units of {products:,} products"


def check_movements(report: Report, servers: Servers) -> None:
    """See that each reservation took its units once, and gave them back at most once."""
    check = report.add("each reservation moved its units")
    reserved, moved = servers.products.one(
        """
        SELECT (SELECT count(*) FROM reservation WHERE outcome IN ('RESERVED', 'RELEASED')),
               (SELECT count(*) FROM stock_movement WHERE order_id <> '')
        """
    )
    check.compared = f"{reserved:,} reservations, {moved:,} movements"
    # One movement takes the units, a second one gives them back.
    query = """
        SELECT coalesce(r.order_id, m.order_id), r.outcome, r.quantity,
               coalesce(m.times, 0), coalesce(m.total, 0)
        FROM (
            SELECT *, CASE outcome WHEN 'RESERVED' THEN 1 ELSE 2 END AS times,
                   CASE outcome WHEN 'RESERVED' THEN -quantity ELSE 0 END AS total
            FROM reservation WHERE outcome IN ('RESERVED', 'RELEASED')
        ) r
        FULL JOIN (
            SELECT order_id, count(*) AS times, sum(delta) AS total,
                   min(product_id::text) AS first_product, max(product_id::text) AS last_product
            FROM stock_movement WHERE order_id <> '' GROUP BY order_id
        ) m ON m.order_id = r.order_id
        WHERE r.order_id IS NULL OR m.order_id IS NULL
           OR m.times <> r.times OR m.total <> r.total
           OR r.product_id::text NOT IN (m.first_product) OR m.first_product <> m.last_product
        ORDER BY 1
    """
    for order_id, outcome, quantity, times, total in servers.products.stream(query):
        if quantity is None:
            check.differs(f"order {order_id} has {times} movements and no units reserved")
        elif (times, total) in ((1, -quantity), (2, 0)):
            check.differs(
                f"a movement of order {order_id} is of another product, or not as {outcome} says"
            )
        else:
            check.differs(
                f"order {order_id} has {quantity:,} units {outcome.lower()}, "
                f"and {times} movements of {total:,} in total"
            )
