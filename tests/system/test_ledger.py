"""A wrong state is planted, and the ledger finds it."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest
import redis
from shop import Shop, eventually

from tools.chaos.harness import Harness
from tools.ledger import check_ledger


@dataclass
class Sold:
    """A product of which one order was confirmed, one cancelled afterwards, and one rejected."""

    product: str
    confirmed: str
    cancelled: str
    rejected: str


@pytest.fixture(scope="module")
def sold(stack: Harness) -> Sold:
    stack.wait_ready()
    shop = Shop(stack.environment)
    lamp = shop.create_product(qty=10)["id"]
    cancelled = shop.order(lamp, 4).json()["id"]
    shop.final_status(cancelled)
    confirmed = shop.order(lamp, 4).json()["id"]
    shop.final_status(confirmed)
    # Both are accepted by the same copy of the product, and there is enough for one.
    stack.stop_process("products-worker")
    rivals = [shop.order(lamp, 2).json()["id"] for _ in range(2)]
    stack.start_process("products-worker")
    [rejected] = [one for one in rivals if shop.final_status(one) == "REJECTED"]
    shop.cancel(cancelled)
    eventually(lambda: shop.product(lamp)["qty"] == 4)
    shop.http.patch(f"{shop.products}/{lamp}", json={"price": 101}, timeout=5)
    assert shop.ledger().differences == []
    return Sold(product=lamp, confirmed=confirmed, cancelled=cancelled, rejected=rejected)


def differing(shop: Shop) -> list[str]:
    """Return the names of the checks that differ."""
    report = check_ledger(shop.environment, wait_seconds=0)
    return [check.name for check in report.checks if check.verdict == "DIFFERS"]


@pytest.fixture
def planted(stack: Harness, sold: Sold) -> Iterator[object]:
    """Changes one row behind the services' back, and changes it back in the end."""
    undo: list[tuple[str, str]] = []

    def execute(service: str, statement: str) -> None:
        url = stack.environment[f"{service.upper()}_DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute(statement.format(**vars(sold))).rowcount == 1

    def plant(service: str, statement: str, back: str) -> None:
        execute(service, statement)
        undo.append((service, back))

    yield plant
    for service, back in undo:
        execute(service, back)


_STOCK = "UPDATE product SET qty = qty {} 1 WHERE id = '{{product}}'"
_RUNNING = "UPDATE stock_movement SET qty_after = qty_after {} 1 WHERE order_id = '{{confirmed}}'"
_QUANTITY = """UPDATE "order" SET quantity = quantity {} 1 WHERE id = '{{confirmed}}'"""
_PRICE = """UPDATE "order" SET total_price = total_price {} 1 WHERE id = '{{confirmed}}'"""
_UNIT_PRICE = """UPDATE "order" SET total_price = total_price {} 40 WHERE id = '{{confirmed}}'"""
_MOMENT = """UPDATE "order" SET created_at = created_at {} WHERE id = '{{confirmed}}'"""
_PRODUCT_PRICE = "UPDATE product SET price = price {} 1 WHERE id = '{{product}}'"
_STATUS = """UPDATE "order" SET status = '{}' WHERE id = '{{rejected}}'"""
_PENDING = """UPDATE "order" SET status = '{}', recheck_at = NULL WHERE id = '{{rejected}}'"""
_OUTCOME = "UPDATE reservation SET outcome = '{}' WHERE order_id = '{{cancelled}}'"
_BEFORE = "UPDATE reservation SET stock_before = {} WHERE order_id = '{{rejected}}'"
_RELEASED = """UPDATE "order" SET released_at = {} WHERE id = '{{cancelled}}'"""
_RECHECK = """UPDATE "order" SET recheck_at = {} WHERE id = '{{cancelled}}'"""
_FIGURE = """INSERT INTO order_figures
    (start, pending, confirmed, rejected, cancelled, revenue) VALUES (now(), 0, 0, {}, 0, 0)"""

_TIMES = "orders were sold at prices of their time"
_LAST_PRICE = "each product has the last price of its history"


class TestTheLedgerFinds:
    @pytest.mark.parametrize(
        ("row", "values", "check"),
        [
            (("products", _STOCK), ("+", "-"), "stock = sum of its movements"),
            (("products", _RUNNING), ("+", "-"), "no stock was ever below zero"),
            (("products", _OUTCOME), ("RESERVED", "RELEASED"), "each reservation moved its units"),
            (("products", _BEFORE), ("2", "0"), "no order refused while there was stock"),
            (("orders", _QUANTITY), ("+", "-"), "units taken = units confirmed"),
            (("orders", _STATUS), ("CONFIRMED", "REJECTED"), "orders = reservations, row by row"),
            (("orders", _RELEASED), ("NULL", "now()"), "orders = reservations, row by row"),
            (("orders", _PRICE), ("+", "-"), "total price = quantity x a price"),
            (("orders", _UNIT_PRICE), ("+", "-"), _TIMES),
            (("orders", _MOMENT), ("+ interval '2 h'", "- interval '2 h'"), _TIMES),
            (("products", _PRODUCT_PRICE), ("+", "-"), _LAST_PRICE),
            (("orders", _PENDING), ("PENDING", "REJECTED"), "every order is final"),
            (("orders", _FIGURE), ("1", "-1"), "figures of the dashboard = orders"),
            (("orders", _RECHECK), ("now() + '1 hour'", "NULL"), "the system is at rest"),
        ],
    )
    def test_a_row_that_was_changed(self, shop, planted, row, values, check):
        (service, statement), (wrong, right) = row, values
        planted(service, statement.format(wrong), statement.format(right))
        assert check in differing(shop)

    @pytest.mark.parametrize(("seconds", "orders"), [(60, 1), (3, 0)])
    def test_an_order_at_a_price_that_is_right_only_if_the_source_was_away(
        self, shop, sold, planted, seconds, orders
    ):
        change = [f"{sign} interval '{seconds} s'" for sign in "+-"]
        planted("orders", *map(_MOMENT.format, change))
        report = check_ledger(shop.environment, wait_seconds=0)

        [note] = [check for check in report.checks if check.name.endswith("s old")]
        # The others of the product were placed before its price changed.
        assert (note.count, note.is_note) == (orders, True)
        assert all(sold.confirmed in example for example in note.examples)
        assert _TIMES not in differing(shop)

    @pytest.mark.parametrize(
        "wrong", [{}, {"price": 1}, {"qty": 99}, {"version": 10**6}, {"asOf": 10**12}]
    )
    def test_a_copy_in_the_catalog_that_is_wrong(self, shop, sold, wrong):
        product = shop.product(sold.product)
        del product["createdAt"]
        copy = {**product, "version": 1, "asOf": int(time.time()), **wrong}
        with redis.Redis.from_url(shop.environment["CACHE_URL"]) as cache:
            cache.set(f"catalog:{sold.product}", json.dumps(copy), ex=60)
            try:
                assert ("catalog copies = database" in differing(shop)) == bool(wrong)
            finally:
                cache.delete(f"catalog:{sold.product}")

    def test_an_event_that_is_not_published(self, shop, planted):
        planted(
            "orders",
            "INSERT INTO outbox_event (event_id, exchange, routing_key, correlation_id, body,"
            " available_at) VALUES (gen_random_uuid(), 'nowhere', 'nowhere', '', '{{}}',"
            " now() + interval '1 hour')",
            "DELETE FROM outbox_event WHERE exchange = 'nowhere'",
        )
        assert "outbox of orders is empty" in differing(shop)

    @pytest.mark.parametrize(
        ("key", "check"),
        [
            ("product:{product}", "cached products = database"),
            ("orders:{product}", "cached order lists = database"),
            ("catalog:{product}", "catalog copies = database"),
            (f"order:{uuid4()}", "no copies of accepted orders are left"),
        ],
    )
    def test_a_copy_that_is_wrong(self, shop, sold, key, check):
        key = key.format(**vars(sold))
        with redis.Redis.from_url(shop.environment["CACHE_URL"]) as cache:
            cache.set(key, "[]", ex=60)
            try:
                assert check in differing(shop)
            finally:
                cache.delete(key)

    def test_a_message_in_the_hands_of_a_consumer_that_hangs(self, stack, shop, sold):
        stack.kill("products-worker", signal.SIGSTOP)
        try:
            order_id = shop.order(sold.product).json()["id"]
            eventually(lambda: shop.status(order_id) == "PENDING")

            def unrest() -> list[str]:
                return check_ledger(shop.environment, wait_seconds=0).checks[0].examples

            eventually(
                lambda: any(each.endswith("messages in consumers' hands") for each in unrest())
            )
        finally:
            stack.kill("products-worker", signal.SIGCONT)
        shop.final_status(order_id)

    def test_nothing_once_all_is_as_it_was(self, shop):
        assert shop.ledger().differences == []
