"""What people do after they have ordered: order again, cancel, restock, archive, and ask."""

import random
from concurrent.futures import ThreadPoolExecutor

import redis
import requests
from shop import Shop, eventually

from tools.chaos.harness import Harness


def timeline(shop: Shop, order_id: str) -> list[str]:
    body = shop.http.get(f"{shop.orders}/{order_id}/timeline", timeout=30).json()
    return [step["name"] for step in body["steps"]]


class TestCancelling:
    def test_gives_the_stock_of_a_confirmed_order_back(self, shop: Shop) -> None:
        lamp = shop.create_product(qty=10)
        order_id = shop.order(lamp["id"], 4).json()["id"]
        assert shop.final_status(order_id) == "CONFIRMED"
        eventually(lambda: shop.product(lamp["id"])["qty"] == 6)

        assert shop.cancel(order_id).json()["status"] == "CANCELLED"

        eventually(lambda: shop.product(lamp["id"])["qty"] == 10)
        eventually(lambda: timeline(shop, order_id)[-1] == "released")
        assert timeline(shop, order_id) == [
            "accepted", "stored", "announced", "reserved", "settled", "cancelled", "released",
        ]  # fmt: skip
        assert shop.ledger().differences == []

    def test_gives_back_what_no_longer_fits_beside_what_came_in(self, shop: Shop) -> None:
        most = 2**31 - 1
        lamp = shop.create_product(qty=10)
        order_id = shop.order(lamp["id"], 3).json()["id"]
        assert shop.final_status(order_id) == "CONFIRMED"
        eventually(lambda: shop.product(lamp["id"])["qty"] == 7)
        url = f"{shop.products}/{lamp['id']}/stock-movements"
        restock = {"delta": most - 7, "reason": "restock"}
        assert shop.http.post(url, json=restock, timeout=5).status_code == 201

        shop.cancel(order_id)

        eventually(lambda: shop.product(lamp["id"])["qty"] == most + 3)
        assert shop.http.get(url, timeout=5).json()[0]["qtyAfter"] == most + 3
        # The order service sells on from the copy that the cancellation has refreshed.
        assert shop.final_status(shop.order(lamp["id"], most).json()["id"]) == "CONFIRMED"
        eventually(lambda: shop.product(lamp["id"])["qty"] == 3)
        assert shop.ledger().differences == []

    def test_at_any_moment_leaves_books_that_agree(self, shop: Shop) -> None:
        lamp = shop.create_product(qty=60)
        dice = random.Random(7)

        def buy_and_regret(number: int) -> None:
            answer = shop.order(lamp["id"], 1 + number % 3)
            if answer.status_code == 201 and dice.random() < 0.6:
                # At once for some, so that the cancellation overtakes the order.
                order_id = answer.json()["id"]
                if dice.random() < 0.5:
                    shop.final_status(order_id)
                assert shop.cancel(order_id).status_code in (200, 409)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(buy_and_regret, range(80)))

        assert shop.ledger().differences == []
        # The events have been handled when the ledger is at rest, so the stock is what it will be.
        sold = sum(each["quantity"] for each in shop.listed(lamp["id"])
                   if each["status"] == "CONFIRMED")  # fmt: skip
        assert shop.product(lamp["id"])["qty"] == 60 - sold


class TestWaiting:
    def test_is_not_cut_off_when_the_service_is_restarted(self, shop: Shop, stack: Harness) -> None:
        lamp = shop.create_product(qty=5)
        stack.stop_process("products-worker")
        order_id = shop.order(lamp["id"]).json()["id"]
        cache = redis.Redis.from_url(shop.environment["CACHE_URL"])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(requests.get, f"{shop.orders}/{order_id}?wait=30", timeout=40)
            # Only who waits makes the service listen.
            eventually(lambda: cache.pubsub_numsub("orders.final")[0][1])
            stack.stop_process("order-service")
            answer = waiting.result()
        stack.start_process("order-service")
        stack.start_process("products-worker")

        assert (answer.status_code, answer.json()["status"]) == (200, "PENDING")


class TestArchiving:
    def test_ends_the_sale(self, shop: Shop) -> None:
        lamp = shop.create_product(qty=5)
        assert shop.final_status(shop.order(lamp["id"]).json()["id"]) == "CONFIRMED"

        gone = shop.http.delete(f"{shop.products}/{lamp['id']}", timeout=30)
        assert gone.status_code == 204

        # The order service hears of it, and asks from then on.
        eventually(lambda: shop.order(lamp["id"]).status_code == 404)
        assert shop.refused[-1].json()["code"] == "product_not_found"
        history = shop.http.get(f"{shop.products}/{lamp['id']}/stock-movements", timeout=30).json()
        assert history[-1]["reason"] == "initial"
        assert shop.ledger().differences == []
