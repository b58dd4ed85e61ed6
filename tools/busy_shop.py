"""A shop after an hour of business: `make seed`, and the pictures of its pages."""

import json
import os
import random
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import redis
import requests
from kombu import Connection, Producer

from deploy.failure import DeployFailure
from deploy.native.supervision import wait_until

#: Name, price in cents, stock, how often it is ordered.
_CATALOGUE = (
    ("Desk lamp, brass", 18900, 240, 8),
    ("Oak bookshelf, 5 boards", 34900, 92, 4),
    ("Wool blanket, grey", 7900, 150, 6),
    ("Espresso cups, set of 4", 3200, 400, 9),
    ("Linen curtain, white", 5900, 46, 3),
    ("Kitchen scale", 2450, 130, 6),
    ("Walnut side table", 21900, 22, 2),
    ("Enamel kettle, 1.5 l", 4900, 90, 3),
)
_ORDERS = 460
_CANCELLED = 0.04
_HOUR = timedelta(minutes=58)
# How long after the one before an order comes when everybody wants the same, compared with others.
_RUSH = 0.15
_PATIENCE_SECONDS = 60


class BusyShop:
    """Sells for an hour in half a minute, beside whatever else is sold.

    Everything happens over HTTP and the broker as it always does. Only the times are moved
    afterwards, in the databases, so that it looks like an hour.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.products_url = environment["PRODUCT_API_URL"]
        self.orders_url = environment["ORDER_API_URL"]
        self._session = requests.Session()
        # A proxy of the environment knows nothing of services on this machine.
        self._session.trust_env = False
        # The same pictures again and again, but for their times.
        self._random = random.Random(7)
        self.products: list[dict[str, Any]] = []
        self.orders: list[dict[str, Any]] = []
        self._rush: set[str] = set()

    def fill(self) -> None:
        """Open the shop, sell, cancel, restock, and get one message that nobody can apply.

        :raises DeployFailure: if the system does not get on with it
        """
        for name, price, stock, _weight in _CATALOGUE:
            body = {"name": name, "price": price, "qty": stock}
            self.products.append(self._post(self.products_url, body))
        self._sell(_ORDERS // 2)
        self._sell_out(self.products[6])
        address = f"{self.products_url}/{self.products[6]['id']}/stock-movements"
        self._post(address, {"delta": 12, "reason": "restock"})
        self._sell(_ORDERS - len(self.orders))
        self._wait_until_decided()
        # Of nothing, which nobody can apply.
        self._announce(4711, self.products[3]["id"], 0)
        self._wait_for("products", "SELECT EXISTS (SELECT FROM dead_letter)")
        self._wait_until_decided()
        self._spread_over_an_hour()

    def _sell(self, count: int) -> None:
        weights = [weight for *_, weight in _CATALOGUE]
        for product in self._random.choices(self.products, weights, k=count):
            self._order(product, self._random.choice((1, 1, 1, 2, 2, 3)))
            if self._random.random() < _CANCELLED:
                self._cancel(self.orders[-1]["id"])

    def _cancel(self, order_id: str) -> None:
        address = f"{self.orders_url}/{order_id}"
        # First its stock is taken, so that there is something to give back.
        self._session.get(address, params={"wait": 10}, timeout=15).raise_for_status()
        self._session.post(f"{address}/cancel", timeout=5)

    def _sell_out(self, product: Mapping[str, Any]) -> None:
        """Accept more than there is: of those who come together, nobody knows yet who is late."""
        before = len(self.orders)
        with ThreadPoolExecutor(product["qty"]) as buyers:
            list(buyers.map(lambda _: self._order(product, 1), range(product["qty"])))
        for unknown in range(4700, 4705):
            self._announce(unknown, str(UUID(int=unknown)), 1)
        self._rush |= {order["id"] for order in self.orders[before:]}
        self._wait_until_decided()

    def _order(self, product: Mapping[str, Any], quantity: int) -> None:
        body = {"productId": product["id"], "quantity": quantity}
        answer = self._session.post(self.orders_url, json=body, timeout=5)
        # Refused at once where the stock is known to be too small: as in life.
        if answer.status_code == requests.codes.created:
            self.orders.append(answer.json())

    def _announce(self, order_id: int, product_id: str, quantity: int) -> None:
        """Announce an order as another system would that sells our products."""
        body = {"orderId": order_id, "productId": product_id, "quantity": quantity}
        with Connection(self._environment["BROKER_URL"]) as connection:
            Producer(connection).publish(
                json.dumps(body).encode(),
                exchange="order.exchange",
                routing_key="order.created",
                content_type="application/json",
                content_encoding="utf-8",
                headers={"x-sender": "partner-portal"},
                delivery_mode=2,
            )

    def _wait_until_decided(self) -> None:
        self._wait_for(
            "orders",
            f"""SELECT count(*) = {len(self.orders)} AND bool_and(status <> 'PENDING')
                AND bool_and(status <> 'CANCELLED' OR released_at IS NOT NULL)
                FROM "order" WHERE id = ANY(%s::uuid[])""",
            [order["id"] for order in self.orders],
        )

    def _wait_for(self, service: str, question: str, *values: object) -> None:
        def is_so() -> bool:
            [(answer,)] = database.execute(question, values)
            return bool(answer)

        with self._database(service) as database:
            if not wait_until(is_so, timeout_seconds=_PATIENCE_SECONDS, pause_seconds=0.2):
                raise DeployFailure(f"{service}: not so after {_PATIENCE_SECONDS} s: {question}")

    def _spread_over_an_hour(self) -> None:
        moves = self._moves()
        ids, by = [order["id"] for order in self.orders], list(moves)
        with self._database("orders") as orders:
            columns = ("created", "stored", "announced", "decided", "settled", "cancelled",
                       "released")  # fmt: skip
            changes = ", ".join(f"{name}_at = {name}_at + moved.by" for name in columns)
            orders.execute(
                f"""UPDATE "order" SET {changes}
                    FROM unnest(%s::uuid[], %s::interval[]) AS moved (id, by)
                    WHERE "order".id = moved.id""",
                [ids, by],
            )
        with self._database("products") as products:
            for table in ("stock_movement", "reservation"):
                products.execute(
                    f"""UPDATE {table} SET created_at = created_at + moved.by
                        FROM unnest(%s::text[], %s::interval[]) AS moved (id, by)
                        WHERE {table}.order_id = moved.id""",
                    [ids, by],
                )
            # Other systems' orders of what there never was.
            products.execute(
                """UPDATE reservation SET created_at = created_at - interval '34 minutes'
                   WHERE reason = 'product_not_found'
                     AND created_at > now() - interval '5 minutes'"""
            )
            ours = [product["id"] for product in self.products]
            for change, which in (
                ("stock_movement SET created_at = created_at - interval '21 minutes'",
                 "order_id = '' AND reason <> 'initial' AND product_id"),
                ("stock_movement SET created_at = created_at - interval '9 days'",
                 "reason = 'initial' AND product_id"),
                ("product SET created_at = created_at - interval '9 days'", "id"),
                ("product_price SET since = since - interval '9 days'", "product_id"),
            ):  # fmt: skip
                products.execute(f"UPDATE {change} WHERE {which} = ANY(%s::uuid[])", [ours])
            # What the worker has counted, it counts again, when no step of it is on its way.
            products.execute(
                "SELECT pg_advisory_xact_lock(x'4649'::int, hashtext(name))"
                " FROM unnest('{movements, sales, stock_figures}'::text[]) AS name"
            )
            products.execute("DELETE FROM sales")
            products.execute("DELETE FROM stock_figures")
            products.execute("DELETE FROM counted_up_to WHERE name = 'movements'")
        # It remembers what was before.
        names = [f"{kind}:{each}" for each in ours for kind in ("product", "orders")]
        redis.Redis.from_url(self._environment["CACHE_URL"]).delete(*names)

    def _moves(self) -> list[timedelta]:
        """Return by how much to move each order, so that some minutes are busier than others."""
        steps, pace = [], 1.0
        for order in self.orders:
            pace = min(2.0, max(0.5, pace + self._random.uniform(-0.3, 0.3)))
            steps.append(pace * (_RUSH if order["id"] in self._rush else 1))
        scale, passed, now = _HOUR / sum(steps), 0.0, datetime.now(UTC)
        moves = []
        for order, step in zip(self.orders, steps, strict=True):
            passed += step
            then = now - _HOUR + passed * scale
            moves.append(then - datetime.fromisoformat(order["createdAt"]))
        return moves

    def _post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._session.post(url, json=body, timeout=5)
        answer.raise_for_status()
        return dict(answer.json())

    def _database(self, service: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self._environment[f"{service.upper()}_DATABASE_URL"])


def main() -> int:
    """Fill the shop that the environment names; return 0 if that went well."""
    shop = BusyShop(os.environ)
    try:
        shop.fill()
    except (DeployFailure, requests.RequestException) as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    print(f"{len(shop.products)} products, {len(shop.orders)} orders of the last hour.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
