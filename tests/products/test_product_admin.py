"""The admin of the product service: the same ways as the API, for people."""

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from products_project.products import cache, reservations
from products_project.products.models import Product
from servicekit.contracts.events import OrderCreated
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent

pytestmark = pytest.mark.django_db

PRODUCTS = "admin:products_product"
LEDGERS = ["products_stockmovement", "products_reservation"]


@pytest.fixture
def sold_lamp(lamp) -> Product:
    reservations.reserve_stock(
        [
            OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=quantity)
            for quantity in (4, 40)
        ]
    )
    return lamp


class TestAddingAProduct:
    @pytest.fixture(autouse=True)
    def added(self, admin_client):
        return admin_client.post(
            reverse(f"{PRODUCTS}_add"), {"name": "Lamp", "price": "190000", "qty": "5"}
        )

    def test_leads_back_to_the_list(self, added):
        assert (added.status_code, added["Location"]) == (302, reverse(f"{PRODUCTS}_changelist"))

    def test_stores_one_product(self):
        product = Product.objects.get()

        assert (product.name, product.price, product.qty) == ("Lamp", 190_000, 5)

    def test_explains_its_stock(self):
        [movement] = Product.objects.get().movements.all()

        assert movement.delta == 5

    def test_announces_it(self):
        [event] = OutgoingEvent.objects.all()

        assert event.routing_key == "product.created"

    def test_caches_it(self):
        assert cache.get(Product.objects.get().id).version == 1


class TestChangingAProduct:
    def test_takes_the_new_price_and_announces_it(self, admin_client, lamp):
        answer = admin_client.post(
            reverse(f"{PRODUCTS}_change", args=[lamp.id]), {"name": "Lamp", "price": "180000"}
        )

        lamp.refresh_from_db()
        assert answer.status_code == 302
        assert (lamp.price, lamp.version) == (180_000, 2)
        assert OutgoingEvent.objects.filter(routing_key="product.updated").count() == 1

    def test_leaves_the_stock_alone_whatever_the_form_says(self, admin_client, lamp):
        admin_client.post(
            reverse(f"{PRODUCTS}_change", args=[lamp.id]),
            {"name": "Lamp", "price": "180000", "qty": "999"},
        )

        lamp.refresh_from_db()
        assert lamp.qty == 10

    @pytest.mark.parametrize("price", ["0", "-1", "", "a lot", str(2**63)])
    def test_shows_the_form_again_when_the_price_is_none(self, admin_client, lamp, price):
        answer = admin_client.post(
            reverse(f"{PRODUCTS}_change", args=[lamp.id]), {"name": "Lamp", "price": price}
        )

        lamp.refresh_from_db()
        assert answer.status_code == 200
        assert b"errorlist" in answer.content
        assert lamp.version == 1


class TestPages:
    @pytest.mark.parametrize("view", ["changelist", "add"])
    def test_of_products_render(self, admin_client, sold_lamp, view):  # noqa: ARG002 - listed
        assert admin_client.get(reverse(f"{PRODUCTS}_{view}")).status_code == 200

    def test_of_one_product_render_with_a_way_to_its_movements(self, admin_client, sold_lamp):
        answer = admin_client.get(reverse(f"{PRODUCTS}_change", args=[sold_lamp.id]))
        ledger = admin_client.get(
            reverse("admin:products_stockmovement_changelist"),
            {"product__id__exact": str(sold_lamp.id)},
        )

        assert b"product__id__exact" in answer.content
        assert b"-4" in ledger.content

    @pytest.mark.parametrize("ledger", LEDGERS)
    def test_of_the_ledgers_render(self, admin_client, sold_lamp, ledger):  # noqa: ARG002 - listed
        answer = admin_client.get(reverse(f"admin:{ledger}_changelist"))

        assert answer.status_code == 200
        assert b"0 of" not in answer.content

    @pytest.mark.parametrize("ledger", LEDGERS)
    def test_of_the_ledgers_are_for_reading_only(self, admin_client, ledger):
        assert admin_client.get(reverse(f"admin:{ledger}_add")).status_code == 403

    def test_find_a_product_by_name(self, admin_client, lamp):
        answer = admin_client.get(reverse(f"{PRODUCTS}_changelist"), {"q": "lam"})

        assert str(lamp.id).encode() in answer.content

    def test_never_offer_to_delete_a_product(self, admin_client, lamp):
        answer = admin_client.post(reverse(f"{PRODUCTS}_delete", args=[lamp.id]), {"post": "yes"})

        assert answer.status_code == 403
        assert Product.objects.filter(id=lamp.id).exists()

    def test_are_for_staff_only(self, client):
        client.force_login(User.objects.create_user("visitor"))
        answer = client.get(reverse(f"{PRODUCTS}_changelist"))

        assert (answer.status_code, "login" in answer["Location"]) == (302, True)
