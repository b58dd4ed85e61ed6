"""Every price that a product had is kept, and since when."""

import json

import pytest
from django.urls import reverse
from django.utils import timezone

from products_project.products import services
from products_project.products.models import Product
from servicekit.outbox import recording


def prices(product: Product) -> list[int]:
    return [each.price for each in product.prices.order_by("id")]


def by_api(client, lamp: Product) -> None:
    body = json.dumps({"price": 7})
    client.patch(f"/products/{lamp.id}", body, content_type="application/json")


def by_form(client, lamp: Product) -> None:
    client.post(
        reverse("admin:products_product_change", args=[lamp.id]), {"name": "Lamp", "price": "0.07"}
    )


@pytest.mark.django_db
class TestAPrice:
    def test_is_kept_from_the_beginning(self, lamp):
        [first] = lamp.prices.all()

        assert (first.price, first.since) == (190_000, lamp.created_at)

    @pytest.mark.parametrize("change", [by_api, by_form])
    def test_is_kept_since_it_was_changed(self, admin_client, lamp, change):
        before = timezone.now()
        change(admin_client, lamp)

        assert prices(lamp) == [190_000, 7]
        since = lamp.prices.last().since
        assert before.timestamp() - 0.001 <= since.timestamp() <= timezone.now().timestamp()

    def test_is_not_kept_again_when_it_stays(self, lamp):
        services.update_product(lamp.id, name="Lantern", price=190_000)
        services.move_stock(product_id=lamp.id, delta=1, reason="restock")

        assert prices(lamp) == [190_000]

    def test_is_kept_in_the_transaction_that_changes_it(self, lamp, monkeypatch):
        def fail(*_: object) -> None:
            raise RuntimeError("no event")

        monkeypatch.setattr(recording, "record_all", fail)
        with pytest.raises(RuntimeError):
            services.update_product(lamp.id, price=7)

        lamp.refresh_from_db()
        assert (lamp.price, prices(lamp)) == (190_000, [190_000])
