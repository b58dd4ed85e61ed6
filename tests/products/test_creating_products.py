"""Creating and changing products."""

import msgspec
import pytest
from django.db import DatabaseError, IntegrityError, connection

from products_project.products import services
from products_project.products.models import Product, StockMovement
from products_project.products.representation import announce
from products_project.products.selectors import ProductNotFound
from servicekit.contracts.events import ProductCreated, ProductUpdated
from servicekit.identifiers import new_id
from servicekit.outbox import recording
from servicekit.outbox.models import OutgoingEvent


@pytest.fixture
def broken_outbox(transactional_db):  # noqa: ARG001 - its table
    """The outbox takes nothing, and says so as PostgreSQL does: in the middle of a transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE outbox_event ADD CONSTRAINT takes_nothing CHECK (false) NOT VALID"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE outbox_event DROP CONSTRAINT takes_nothing")


@pytest.mark.django_db
class TestCreateProduct:
    def test_stores_what_was_asked_for_explains_its_stock_and_records_the_event(self):
        product = services.create_product(name="Lamp", price=190_000, qty=10)

        stored = Product.objects.get(id=product.id)
        assert (stored.name, stored.price, stored.qty, stored.version) == ("Lamp", 190_000, 10, 1)
        [movement] = product.movements.all()
        assert (movement.delta, movement.reason) == (10, StockMovement.Reason.INITIAL)
        [recorded] = OutgoingEvent.objects.all()
        assert (recorded.exchange, recorded.routing_key) == ("product.exchange", "product.created")
        # The whole state, under the names that existing consumers read.
        told = msgspec.json.decode(recorded.body)
        assert told.pop("createdAt")
        assert told == {
            "id": str(product.id), "name": "Lamp", "price": 190_000, "qty": 10, "version": 1,
        }  # fmt: skip

    def test_needs_no_movement_for_an_empty_stock(self):
        product = services.create_product(name="Lamp", price=190_000, qty=0)

        assert not product.movements.exists()

    @pytest.mark.parametrize(("price", "qty"), [(0, 1), (-1, 1), (1, -1)])
    def test_is_stopped_by_the_database_where_no_serializer_was_in_the_way(self, price, qty):
        with pytest.raises(IntegrityError):
            services.create_product(name="Lamp", price=price, qty=qty)


@pytest.mark.usefixtures("broken_outbox")
@pytest.mark.django_db(transaction=True)
class TestCreateProductThatCannotBeAnnounced:
    def test_leaves_neither_product_nor_movement(self):
        with pytest.raises(DatabaseError):
            services.create_product(name="Lamp", price=190_000, qty=10)

        assert not Product.objects.exists()
        assert not StockMovement.objects.exists()

    def test_would_leave_a_product_nobody_hears_of_if_it_were_announced_afterwards(self):
        # The negative control: the same without the common transaction.
        product = Product.objects.create(name="Lamp", price=190_000, qty=10)
        with pytest.raises(DatabaseError):
            OutgoingEvent.objects.record([announce(ProductCreated, product)])

        assert Product.objects.exists()

    def test_is_refused_outside_a_transaction(self):
        product = Product(name="Lamp", price=190_000, qty=10)

        with pytest.raises(RuntimeError, match="in the transaction that makes them true"):
            recording.record_all([announce(ProductCreated, product)])


@pytest.mark.django_db
class TestUpdateProduct:
    def test_changes_what_is_given_and_nothing_else_and_records_the_new_state(self, lamp):
        services.update_product(lamp.id, price=180_000)
        services.update_product(lamp.id, name="Lantern")

        lamp.refresh_from_db()
        recorded = OutgoingEvent.objects.filter(routing_key="product.updated").latest("id")
        event = ProductUpdated.from_json(recorded.body.encode())
        for state in (lamp, event):
            assert (state.name, state.price, state.qty) == ("Lantern", 180_000, 10)
            assert state.version == 3

    def test_announces_nothing_when_nothing_is_to_be_changed(self, lamp):
        product = services.update_product(lamp.id)

        assert product.version == 1
        assert not OutgoingEvent.objects.filter(routing_key="product.updated").exists()

    def test_raises_product_not_found_without_a_trace(self):
        with pytest.raises(ProductNotFound):
            services.update_product(new_id(), price=1)

        assert not OutgoingEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestUpdateProductThatCannotBeAnnounced:
    @pytest.mark.usefixtures("lamp", "broken_outbox")
    def test_leaves_the_product_as_it_was(self, lamp):
        with pytest.raises(DatabaseError):
            services.update_product(lamp.id, price=1)

        lamp.refresh_from_db()
        assert (lamp.price, lamp.version) == (190_000, 1)
