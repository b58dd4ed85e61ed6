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
    def test_stores_what_was_asked_for(self):
        product = services.create_product(name="Lamp", price=190_000, qty=10)

        stored = Product.objects.get(id=product.id)
        assert (stored.name, stored.price, stored.qty, stored.version) == ("Lamp", 190_000, 10, 1)

    def test_explains_the_first_stock_with_a_movement(self):
        product = services.create_product(name="Lamp", price=190_000, qty=10)

        [movement] = product.movements.all()
        assert (movement.delta, movement.reason) == (10, StockMovement.Reason.INITIAL)

    def test_needs_no_movement_for_an_empty_stock(self):
        product = services.create_product(name="Lamp", price=190_000, qty=0)

        assert not product.movements.exists()

    def test_records_the_event_with_the_state_as_a_whole(self):
        product = services.create_product(name="Lamp", price=190_000, qty=10)

        [recorded] = OutgoingEvent.objects.all()
        event = ProductCreated.from_json(recorded.body.encode())
        assert (recorded.exchange, recorded.routing_key) == ("product.exchange", "product.created")
        assert (event.id, event.name, event.price, event.qty, event.version) == (
            product.id, "Lamp", 190_000, 10, 1,
        )  # fmt: skip

    def test_names_the_fields_of_the_event_as_existing_consumers_read_them(self):
        services.create_product(name="Lamp", price=190_000, qty=10)

        [recorded] = OutgoingEvent.objects.all()
        assert set(msgspec.json.decode(recorded.body)) == {
            "id", "name", "price", "qty", "createdAt", "version",
        }  # fmt: skip

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
    def test_changes_what_is_given_and_nothing_else(self, lamp):
        services.update_product(lamp.id, price=180_000)

        lamp.refresh_from_db()
        assert (lamp.name, lamp.price, lamp.qty) == ("Lamp", 180_000, 10)

    def test_raises_the_version(self, lamp):
        services.update_product(lamp.id, price=180_000)
        services.update_product(lamp.id, name="Lantern")

        lamp.refresh_from_db()
        assert lamp.version == 3

    def test_records_the_new_state_as_a_whole(self, lamp):
        services.update_product(lamp.id, name="Lantern")

        recorded = OutgoingEvent.objects.get(routing_key="product.updated")
        event = ProductUpdated.from_json(recorded.body.encode())
        assert (event.name, event.price, event.qty, event.version) == ("Lantern", 190_000, 10, 2)

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
