"""`GET /orders?sort=stored`: who goes on from the last cursor sees every order, and each once."""

import random
import re
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client

from orders_project.orders import services
from orders_project.orders.models import Order, OrderManager
from orders_project.orders.selectors import StoragePosition, orders_as_stored
from servicekit.timestamps import rfc3339
from tests.servicekit.interleaving import in_every_order, run_in_order

pytestmark = pytest.mark.django_db(transaction=True)


class Poller:
    """Asks again and again, each time from where the answer before has led."""

    def __init__(self, query: str = "") -> None:
        self.address = f"/orders?sort=stored{query}"

    def poll(self) -> list[str]:
        answer = Client().get(self.address)
        assert answer.status_code == 200, answer.content
        self.address = re.fullmatch(r'<([^>]+)>; rel="next"', answer["Link"])[1]
        return [order["id"] for order in answer.json()]

    def poll_all(self) -> list[str]:
        seen: list[str] = []
        while page := self.poll():
            seen += page
        return seen


@contextmanager
def beside(work: Callable[[], object], *, is_undone: bool = False) -> Iterator[None]:
    """Work in a transaction of another connection, which ends when the block does."""
    has_worked, may_end = threading.Event(), threading.Event()

    def run() -> None:
        try:
            with transaction.atomic():
                work()
                has_worked.set()
                may_end.wait(60)
                transaction.set_rollback(is_undone)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert has_worked.wait(60)
        yield
    finally:
        may_end.set()
        thread.join()


def insert(*orders) -> None:
    Order.objects.insert_new(orders, recheck_after_seconds=30)


def ids(*orders) -> list[str]:
    return [str(order.id) for order in orders]


class TestAnOrderThatIsStoredLate:
    @pytest.fixture
    def early(self, accepted_order):
        return accepted_order()

    @pytest.fixture
    def late(self, accepted_order, early):
        return accepted_order(created_at=early.created_at + timedelta(seconds=1))

    def test_is_skipped_by_who_asks_for_newer_ones(self, client, early, late):
        # Why there is another order to ask for.
        with beside(lambda: insert(early)):
            insert(late)
            assert [order["id"] for order in client.get("/orders").json()] == ids(late)

        assert client.get(f"/orders?createdAfter={rfc3339(late.created_at)}").json() == []

    def test_is_not_skipped_in_the_order_of_storage(self, early, late):
        poller = Poller()
        with beside(lambda: insert(early)):
            insert(late)
            assert poller.poll() == []

        assert (poller.poll(), poller.poll()) == (ids(early, late), [])

    def test_would_be_skipped_by_its_number_alone(self, early, late, monkeypatch):
        # Proves that the test above can fail.
        monkeypatch.setattr(OrderManager, "stored_for_good", lambda _self: 2**62)
        poller = Poller()
        with beside(lambda: insert(early)):
            insert(late)
            assert poller.poll() == ids(late)

        assert poller.poll() == []

    def test_does_not_hold_up_others_when_it_is_not_stored_after_all(self, early, late):
        poller = Poller()
        with beside(lambda: insert(early), is_undone=True):
            insert(late)

        assert poller.poll_all() == ids(late)

    @pytest.mark.parametrize(
        "work",
        [
            lambda: list(Order.objects.all()),
            lambda: Order.objects.update(reason="of another's transaction"),
            lambda: connection.cursor().execute("SELECT pg_advisory_xact_lock(1)"),
        ],
        ids=["reads", "writes", "locks"],
    )
    def test_is_all_that_others_wait_for(self, early, late, work):
        insert(early)
        with beside(work):
            insert(late)
            assert Poller().poll() == ids(early, late)


class TestTheOrderOfStorage:
    @pytest.mark.parametrize("limit", [1, 2, 7])
    def test_is_read_once_from_the_beginning_and_goes_on(self, accepted_order, limit):
        poller = Poller(f"&limit={limit}")
        assert poller.poll_all() == []
        for _ in range(2):
            batches = [[accepted_order() for _ in range(2)] for _ in range(3)]
            for batch in batches:
                services.place_orders(batch)

            assert poller.poll_all() == ids(*[order for batch in batches for order in batch])

    def test_begins_with_what_was_stored_before_there_was_one(self, accepted_order):
        # Ids that were made of keys, and are in no order of time.
        old = [accepted_order(id=uuid4()) for _ in range(7)]
        insert(*old)
        try:
            call_command("migrate", "orders", "0001", verbosity=0)
        finally:
            call_command("migrate", "orders", verbosity=0)
        new = [accepted_order() for _ in range(3)]
        insert(*new)

        assert Poller("&limit=2").poll_all() == [*sorted(ids(*old)), *ids(*new)]

    def test_does_not_bring_an_order_again_that_changes(self, accepted_order):
        order, poller = accepted_order(), Poller()
        insert(order)
        assert poller.poll() == ids(order)

        services.cancel_order(order.id)

        assert poller.poll() == []

    def test_costs_a_transaction_one_lock_however_many_statements_it_has(self, accepted_order):
        with transaction.atomic(), connection.cursor() as cursor:
            for _ in range(3):
                insert(accepted_order())
            of_ours = "locktype = 'advisory' AND pid = pg_backend_pid()"
            cursor.execute(f"SELECT count(*) FROM pg_locks WHERE {of_ours}")
            assert cursor.fetchone() == (1,)

    def test_shows_every_order_once_in_every_order_of_statements(self, accepted_order):
        def run(choices: Sequence[int]) -> list[int]:
            slow, fast = orders = [accepted_order(), accepted_order()]
            seen: list[Order] = []

            def store_slowly() -> None:
                with transaction.atomic():
                    insert(slow)

            def read() -> None:
                after = StoragePosition.of(seen[-1]) if seen else StoragePosition()
                seen.extend(orders_as_stored(limit=50, after=after))

            options = run_in_order([store_slowly, partial(insert, fast), read], choices)
            read()
            assert sorted(ids(*seen)) == sorted(ids(*orders))
            Order.objects.all().delete()
            return options

        assert in_every_order(run) > 50

    def test_shows_every_order_once_while_many_are_stored_at_once(self, accepted_order):
        stored: set[str] = set()
        poller, seen = Poller("&limit=7"), []

        def store(dice: random.Random) -> None:
            try:
                for _ in range(15):
                    orders = [accepted_order() for _ in range(dice.randint(1, 9))]
                    is_undone = dice.random() < 0.2
                    with transaction.atomic():
                        for order in orders:
                            insert(order)
                            threading.Event().wait(dice.random() * 0.01)
                        transaction.set_rollback(is_undone)
                    if not is_undone:
                        stored.update(ids(*orders))
            finally:
                connection.close()

        threads = [threading.Thread(target=store, args=[random.Random(n)]) for n in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen += poller.poll()
        seen += poller.poll_all()

        assert len(stored) > 100
        assert sorted(seen) == sorted(stored)


def cursor(text: str) -> str:
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


class TestNonsense:
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("sort=", "sort"),
            ("sort=created", "sort"),
            ("sort=-stored", "sort"),
            ("sort=stored&status=PENDING", "sort"),
            (f"sort=stored&productId={UUID(int=1)}", "sort"),
            ("sort=stored&createdAfter=2026-11-23T10:00:00Z", "sort"),
            ("sort=stored&createdBefore=2026-11-23T10:00:00Z", "sort"),
            ("sort=stored&limit=0", "limit"),
            ("sort=stored&cursor=", "cursor"),
            *(
                (f"sort=stored&cursor={cursor(text.format(UUID(int=1)))}", "cursor")
                for text in ("1764150000000.{}", "stored.{}", "stored.1", "stored.01.{}",
                             "stored.-1.{}", "stored.9223372036854775808.{}", "stored.1.{}.1",
                             "other.1.{}")
            ),
            (f"cursor={cursor(f'stored.1.{UUID(int=1)}')}", "cursor"),
        ],
    )  # fmt: skip
    def test_is_refused(self, client, query, field):
        answer = client.get(f"/orders?{query}")

        assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
        assert answer.json()["code"] == "invalid"
        assert [error["field"] for error in answer.json()["errors"]] == [field]
