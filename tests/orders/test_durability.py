"""The two ways to make orders durable, and what is said of a batch that took them."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import psycopg
import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from orders_project.orders import cache, services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from orders_project.orders.placement import durability
from orders_project.orders.placement.durability import Durability, Outcome
from servicekit.caching.redis import UNAVAILABLE
from servicekit.messaging.publisher import Outcome as Confirm
from servicekit.messaging.publisher import PublishingFailed
from tests.servicekit.private_broker import unused_port

pytestmark = pytest.mark.django_db(transaction=True)

SAFE, NOWHERE, UNKNOWN = Outcome.SAFE, Outcome.NOWHERE, Outcome.UNKNOWN


class TestOrElse:
    @pytest.mark.parametrize(
        ("first", "second", "both"),
        [(NOWHERE, NOWHERE, NOWHERE), (NOWHERE, UNKNOWN, UNKNOWN), (NOWHERE, SAFE, SAFE),
         (UNKNOWN, NOWHERE, UNKNOWN), (UNKNOWN, UNKNOWN, UNKNOWN), (UNKNOWN, SAFE, SAFE)],
    )  # fmt: skip
    def test_says_what_two_ways_together_have_come_to(self, first, second, both):
        assert first.or_else(lambda: second) is both

    def test_goes_no_other_way_when_the_first_was_good(self):
        assert SAFE.or_else(pytest.fail) is SAFE

    def test_does_not_depend_on_how_three_are_taken_together(self):
        for one, two, three in itertools.product(Outcome, repeat=3):
            left = one.or_else(lambda two=two: two).or_else(lambda three=three: three)
            right = one.or_else(lambda two=two, three=three: two.or_else(lambda: three))
            assert left is right


@pytest.fixture
def made(settings, broker) -> Iterator[Durability]:
    settings.BROKER_URL = broker.url
    broker.declare_queue(PersistOrders.queue)
    ways = Durability()
    yield ways
    ways.close()
    broker.delete_queue(PersistOrders.queue)


@pytest.fixture
def broker_does(made, monkeypatch) -> Callable[[object], None]:
    """Return a function that decides what the broker does with what it is given from now on."""

    def answer(outcome: object) -> None:
        def publish(messages: object) -> list[Confirm]:
            if isinstance(outcome, Exception):
                raise outcome
            return [outcome for _ in messages]

        monkeypatch.setattr(made._publisher, "publish", publish)

    return answer


@pytest.fixture
def database_does(monkeypatch) -> Callable[[Exception], None]:
    """Return a function that has every attempt to store fail from now on."""

    def fail(error: Exception) -> None:
        def place(*_arguments: object, **_options: object) -> None:
            raise error

        monkeypatch.setattr(services, "place_orders", place)

    return fail


def as_django_says(said: str) -> OperationalError:
    error = OperationalError("away")
    error.__cause__ = psycopg.OperationalError(said)
    return error


# Of a server that is not there: nothing can have been committed.
gone = partial(as_django_says, "connection failed: nobody is there")
cut_off = partial(as_django_says, "server closed the connection unexpectedly")


BROKEN = {
    "returned": (Confirm.RETURNED, NOWHERE),
    "unreachable": (PublishingFailed("no", maybe_published=False), NOWHERE),
    "refused": (Confirm.REFUSED, UNKNOWN),
    "silent": (PublishingFailed("no confirm", maybe_published=True), UNKNOWN),
}
# Only where neither can have worked is it nowhere for certain.
BOTH_FAIL = {
    f"{broker}, {database}": (failure, error(), UNKNOWN if UNKNOWN in (alone, then) else NOWHERE)
    for broker, (failure, alone) in BROKEN.items()
    for database, (error, then) in {"gone": (gone, NOWHERE), "cut off": (cut_off, UNKNOWN)}.items()
}


class TestPlace:
    def test_hands_over_and_stores_nothing(self, made, broker, accepted_order):
        order = accepted_order()

        assert made.place([order]) is SAFE
        assert broker.count(PersistOrders.queue) == 1
        assert not Order.objects.exists()
        assert cache.get_accepted(order.id) is not None

    @pytest.mark.usefixtures("without_redis")
    def test_stores_what_could_not_be_seen_otherwise(self, made, broker, accepted_order):
        order = accepted_order()

        assert made.place([order]) is SAFE
        assert broker.count(PersistOrders.queue) == 1
        # The worker has the message, and announces it: it is not due at once.
        assert Order.objects.get().recheck_at > timezone.now()

    @pytest.mark.usefixtures("without_redis")
    def test_is_safe_with_the_broker_alone(self, made, database_does, accepted_order):
        database_does(gone())

        assert made.place([accepted_order()]) is SAFE

    def test_stores_an_order_once_that_is_twice_in_a_batch(self, made, broker_does, accepted_order):
        order = accepted_order()
        broker_does(Confirm.RETURNED)

        assert made.place([order, order]) is SAFE
        assert Order.objects.count() == 1


@pytest.mark.parametrize("case", BOTH_FAIL.values(), ids=BOTH_FAIL.keys())
@pytest.mark.parametrize("place", [Durability.place, Durability.place_keyed])
def test_either_way_says_what_it_knows_when_both_servers_fail(
    made, broker_does, database_does, accepted_order, *, place, case
):
    failure, error, expected = case
    order = accepted_order()
    broker_does(failure)
    database_does(error)

    assert place(made, [order]) is expected
    # Nobody may see an order that nobody was promised.
    if place is Durability.place or expected is NOWHERE:
        assert cache.get_accepted(order.id) is None


class TestPlaceKeyed:
    def test_stores_and_announces(self, made, broker, accepted_order):
        broker.declare_queue("announced")
        broker.bind("announced", "order.exchange", "order.created")
        order = accepted_order()

        assert made.place_keyed([order]) is SAFE
        assert Order.objects.get().id == order.id
        assert broker.count("announced") == 1
        assert broker.count(PersistOrders.queue) == 0
        broker.delete_queue("announced")

    @pytest.mark.parametrize("is_maybe_published", [True, False])
    def test_has_the_watchdog_announce_what_it_cannot(
        self, made, broker_does, accepted_order, is_maybe_published
    ):
        broker_does(PublishingFailed("no", maybe_published=is_maybe_published))

        assert made.place_keyed([accepted_order()]) is SAFE
        assert Order.objects.get().recheck_at <= timezone.now()

    def test_leaves_the_watchdog_its_time_when_the_database_goes_as_well(
        self, made, accepted_order, monkeypatch
    ):
        with monkeypatch.context() as away:

            def publish(_messages: object) -> None:
                connection.close()
                away.setitem(connection.settings_dict, "PORT", unused_port())
                raise PublishingFailed("no", maybe_published=False)

            monkeypatch.setattr(made._publisher, "publish", publish)
            assert made.place_keyed([accepted_order()]) is SAFE

        assert Order.objects.get().recheck_at > timezone.now()

    def test_takes_the_first_of_two_attempts_in_a_batch(self, made, accepted_order):
        first = accepted_order(total_price=10)
        second = accepted_order(id=first.id, total_price=99, product_id=first.product_id)

        assert made.place_keyed([first, second]) is SAFE
        assert Order.objects.get().total_price == 10

    def test_hands_over_without_the_database(self, made, broker, database_does, accepted_order):
        database_does(gone())

        assert made.place_keyed([accepted_order()]) is SAFE
        assert broker.count(PersistOrders.queue) == 1

    def test_shows_nothing_that_may_yet_be_refused(
        self, made, database_does, accepted_order, monkeypatch
    ):
        order, seen = accepted_order(), []

        def publish(_messages: object) -> list[Confirm]:
            seen.append(cache.get_accepted(order.id))
            return [Confirm.RETURNED]

        monkeypatch.setattr(made._publisher, "publish", publish)
        database_does(gone())

        assert made.place_keyed([order]) is NOWHERE
        assert seen == [None]

    def test_shows_what_is_handed_over_also_when_it_is_refused_again(
        self, made, broker_does, database_does, accepted_order
    ):
        order = accepted_order()
        database_does(gone())
        made.place_keyed([order])
        assert cache.get_accepted(order.id) is not None
        broker_does(Confirm.RETURNED)

        assert made.place_keyed([order]) is NOWHERE
        assert cache.get_accepted(order.id) is not None

    def test_spares_a_database_that_has_just_failed(
        self, made, database_does, accepted_order, monkeypatch
    ):
        database_does(gone())
        made.place_keyed([accepted_order()])
        monkeypatch.setattr(durability.services, "place_orders", pytest.fail)

        assert made.place_keyed([accepted_order()]) is SAFE

    @pytest.mark.parametrize("is_told", [True, False])
    def test_tells_redis_later_what_it_could_not(
        self, made, database_does, accepted_order, monkeypatch, is_told
    ):
        first = accepted_order(total_price=10)
        with monkeypatch.context() as away:
            away.setattr(cache, "best_effort", lambda _do: UNAVAILABLE)
            if is_told:
                assert made.place_keyed([first]) is SAFE
            else:
                # It may have been stored all the same.
                database_does(cut_off())
                assert made.place_keyed([first]) is UNKNOWN
        database_does(gone())

        again = accepted_order(id=first.id, total_price=99, product_id=first.product_id)
        other = accepted_order()
        assert made.place_keyed([again, other]) is SAFE
        assert cache.get_first(first.id).total_price == 10
        assert cache.get_first(other.id).total_price == other.total_price
        assert cache.get_accepted(first.id) is not None
