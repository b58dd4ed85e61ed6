"""The admin of the product service: the same ways as the API, for people."""

import csv
import io
import json
import re
from collections import Counter
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone
from django_redis import get_redis_connection

from products_project.products import cache, figures, services
from products_project.products.admin.files import ProductImport
from products_project.products.admin.stock import stock_badge
from products_project.products.models import Product, StockMovement
from servicekit.caching import refusals
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent
from tests.products.answers import release, reserve
from tests.servicekit.private_broker import eventually

pytestmark = pytest.mark.django_db

PRODUCTS = "admin:products_product"


def an_order(lamp: Product, quantity: int) -> OrderCreated:
    return OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=quantity)


@pytest.fixture
def sold_lamp(lamp) -> Product:
    reserve([an_order(lamp, quantity) for quantity in (4, 40)])
    return lamp


def page_of(product: Product) -> str:
    return reverse(f"{PRODUCTS}_change", args=[product.id])


def cancel(order: OrderCreated) -> None:
    facts = {each: getattr(order, each) for each in ("order_id", "product_id", "quantity")}
    release([OrderCancelled(**facts)])


class TestAddingAProduct:
    def test_stores_explains_announces_and_caches_it(self, admin_client):
        facts = {"name": "Lamp", "price": "1,900.00", "qty": "5"}
        added = admin_client.post(reverse(f"{PRODUCTS}_add"), facts)

        assert (added.status_code, added["Location"]) == (302, reverse(f"{PRODUCTS}_changelist"))
        product = Product.objects.get()
        assert (product.name, product.price, product.qty) == ("Lamp", 190_000, 5)
        assert [movement.delta for movement in product.movements.all()] == [5]
        assert OutgoingEvent.objects.get().routing_key == "product.created"
        assert cache.get(product.id).version == 1


class TestChangingAProduct:
    def test_takes_the_new_price_announces_it_and_leaves_the_stock_alone(self, admin_client, lamp):
        answer = admin_client.post(page_of(lamp), {"name": "Lamp", "price": "1800", "qty": "999"})

        lamp.refresh_from_db()
        assert answer.status_code == 302
        assert (lamp.price, lamp.version, lamp.qty) == (180_000, 2, 10)
        assert OutgoingEvent.objects.filter(routing_key="product.updated").count() == 1

    def test_is_told_by_its_history_with_what_was_and_what_is(self, admin_client, lamp):
        for name, price, low_stock in (("Torch", "1800", ""), ("Torch", "1800", "5")) * 2:
            facts = {"name": name, "price": price, "low_stock": low_stock}
            admin_client.post(page_of(lamp), facts)
        page = admin_client.get(reverse(f"{PRODUCTS}_history", args=[lamp.pk])).content.decode()

        for said in ("name Lamp → Torch, price 1,900.00 EUR → 1,800.00 EUR", "low stock at — → 5",
                     "low stock at 5 → —"):  # fmt: skip
            assert f"Changed: {said}" in page
        assert "4 entries" in page
        assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", page)

    def test_says_from_where_its_stock_is_low_and_says_so_no_more(self, admin_client, lamp):
        for sent, stored in (("7", 7), ("-1", 7), ("", None)):
            facts = {"name": "Lamp", "price": "190000", "low_stock": sent}
            admin_client.post(page_of(lamp), facts)
            lamp.refresh_from_db()
            assert lamp.low_stock == stored

    @pytest.mark.parametrize(
        ("changed", "is_saved"),
        [
            ({"name": "Torch"}, False),
            ({"price": 7}, False),
            ({"low_stock": 3}, False),
            (None, True),
        ],
    )
    def test_undoes_nothing_that_the_page_did_not_show(self, admin_client, lamp, changed, is_saved):
        page = page_of(lamp)
        opened = admin_client.get(page).content.decode()
        sent = dict(re.findall(r'name="(initial-\w+)"(?: value="([^"]*)")?', opened))
        if changed:
            services.update_product(lamp.id, **changed)
        else:
            # A sale is no reason to refuse a price.
            services.move_stock(product_id=lamp.id, delta=-1, reason="correction")
        answer = admin_client.post(page, {**sent, "name": "Lamp", "price": "1800"}, follow=True)

        assert sent == {"initial-name": "Lamp", "initial-price": "1900.00", "initial-low_stock": ""}
        lamp.refresh_from_db()
        assert (lamp.price == 180_000) == is_saved
        assert (b"Not saved: the product was changed" in answer.content) != is_saved
        assert lamp.name == (changed or {}).get("name", "Lamp")

    def test_undoes_nothing_for_a_page_that_nobody_was_shown(self, admin_client, lamp):
        facts = {"name": "Lamp", "price": "1800", "initial-price": "x", "initial-low_stock": ""}
        answer = admin_client.post(page_of(lamp), facts, follow=True)

        assert b"Not saved: the product was changed" in answer.content

    def test_leaves_alone_what_is_archived_meanwhile(self, admin_client, lamp, monkeypatch):
        change = services.update_product

        def come_too_late(*arguments: object, **facts: object) -> object:
            services.archive_product(lamp.id)
            return change(*arguments, **facts)

        monkeypatch.setattr(services, "update_product", come_too_late)
        page = page_of(lamp)
        answer = admin_client.post(page, {"name": "Lamp", "price": "1800"}, follow=True)

        lamp.refresh_from_db()
        assert answer.redirect_chain == [(page, 302)]
        assert [each.level_tag for each in answer.context["messages"]] == ["error"]
        assert lamp.price == 190_000

    @pytest.mark.parametrize(
        "price", ["0", "-1", "", "a lot", str(2**63), "19,00", "1.900,00", "1.001", "NaN"]
    )
    def test_shows_the_form_again_when_the_price_is_none(self, admin_client, lamp, price):
        answer = admin_client.post(page_of(lamp), {"name": "Lamp", "price": price})

        lamp.refresh_from_db()
        assert answer.status_code == 200
        assert answer.context["adminform"].form.errors["price"]
        assert lamp.version == 1


class TestPages:
    @pytest.mark.parametrize("ledger", ["stockmovement", "reservation"])
    def test_lead_to_the_orders_that_the_order_service_has(
        self, admin_client, lamp, settings, ledger
    ):
        settings.OTHER_SERVICE = {**settings.OTHER_SERVICE, "public": "https://orders.example"}
        ours = an_order(lamp, 4)
        reserve([ours, OrderCreated(order_id=77, product_id=lamp.id, quantity=3)])

        for page in (reverse(f"admin:products_{ledger}_changelist"), page_of(lamp)):
            content = admin_client.get(page).content.decode()
            assert f"https://orders.example/admin/orders/order/{ours.order_id}/change/" in content
            assert "77</code>" in content
            assert "order/77" not in content
        # Here that of the product's page.
        assert f"https://orders.example/admin/orders/order/?q={lamp.id}" in content

    def test_to_add_a_product_renders(self, admin_client):
        assert admin_client.get(reverse(f"{PRODUCTS}_add")).status_code == 200

    def test_of_one_product_render_with_a_way_to_its_movements(self, admin_client, sold_lamp):
        answer = admin_client.get(page_of(sold_lamp))
        ledger = admin_client.get(
            reverse("admin:products_stockmovement_changelist"),
            {"product__id__exact": str(sold_lamp.id)},
        )

        assert b"product__id__exact" in answer.content
        assert b"-4" in ledger.content

    @pytest.mark.usefixtures("sold_lamp")
    @pytest.mark.parametrize("ledger", ["products_stockmovement", "products_reservation"])
    def test_of_the_ledgers_are_for_reading_only(self, admin_client, ledger):
        answer = admin_client.get(reverse(f"admin:{ledger}_changelist"))

        assert answer.status_code == 200
        assert b"0 of" not in answer.content
        assert admin_client.get(reverse(f"admin:{ledger}_add")).status_code == 403

    def test_never_offer_to_delete_a_product(self, admin_client, lamp):
        answer = admin_client.post(reverse(f"{PRODUCTS}_delete", args=[lamp.id]), {"post": "yes"})

        assert answer.status_code == 403
        assert Product.objects.filter(id=lamp.id).exists()

    def test_are_for_staff_only(self, client):
        client.force_login(User.objects.create_user("visitor"))
        answer = client.get(reverse(f"{PRODUCTS}_changelist"))

        assert (answer.status_code, "login" in answer["Location"]) == (302, True)

    def test_of_an_archived_product_are_for_reading_only(self, admin_client, lamp):
        services.archive_product(lamp.id)
        page = page_of(lamp)

        assert b"archived" in admin_client.get(reverse(f"{PRODUCTS}_changelist")).content
        assert "1,900.00 EUR" in admin_client.get(page).content.decode()
        assert admin_client.post(page, {"name": "Other", "price": "1"}).status_code == 403

    @pytest.mark.parametrize(
        ("query", "found"),
        [("stock=short", 1), ("stock=out", 0), ("stock=low", 1), ("stock=ok", 0), ("sold=no", 0),
         ("sold=yes", 1)],
    )  # fmt: skip
    def test_filter_by_stock_and_by_what_is_sold(self, admin_client, lamp, query, found):  # noqa: ARG002 - ten are low
        answer = admin_client.get(f"{reverse(f'{PRODUCTS}_changelist')}?{query}")

        assert answer.context["cl"].result_count == found

    @pytest.mark.parametrize(
        "query",
        ["name__regex=(", "created_at__year=0", "qty__range=1", "nonsense=1", "name=%00"],
    )
    @pytest.mark.parametrize("page", ["changelist", "export"])
    # Outside of a transaction, which what the database refuses would end.
    @pytest.mark.django_db(transaction=True)
    def test_say_that_a_filter_cannot_be_meant(self, admin_client, lamp, page, query):  # noqa: ARG002 - to be found
        answer = admin_client.get(f"{reverse(f'{PRODUCTS}_{page}')}?{query}", follow=True)

        assert said(answer) == ["The filter or page is not valid: the list is not filtered."]
        assert answer.context["cl"].result_count == 1

    @pytest.mark.parametrize(
        ("low_stock", "qty", "kinds"),
        [("", 10, "short low"), ("", 11, "ok"), ("9", 10, "ok"), ("50", 50, "short low"),
         ("0", 1, "ok"), ("0", 0, "short out"), ("50", 0, "short out")],
    )  # fmt: skip
    def test_go_by_what_is_little_of_the_product(self, admin_client, low_stock, qty, kinds):
        facts = {"name": "Lamp", "price": "5", "qty": str(qty), "low_stock": low_stock}
        admin_client.post(reverse(f"{PRODUCTS}_add"), facts)
        address = f"{reverse(f'{PRODUCTS}_changelist')}?stock="
        pages = {kind: admin_client.get(address + kind) for kind in ("short", "out", "low", "ok")}

        found = [kind for kind, page in pages.items() if page.context["cl"].result_count]
        assert " ".join(found) == kinds
        badges = {"ok": "In stock", "low": "Low stock", "out": "Out of stock"}
        badge = stock_badge(qty, int(low_stock) if low_stock else None)
        assert badges[found[-1]] in badge
        assert badge in pages[found[0]].content.decode()

    def test_find_a_product_by_its_id_and_by_its_name(self, admin_client, lamp):
        services.create_product(name="Shelf", price=1, qty=1)
        for query in (str(lamp.id), "lam"):
            answer = admin_client.get(reverse(f"{PRODUCTS}_changelist"), {"q": query})
            assert [each.pk for each in answer.context["cl"].result_list] == [lamp.pk]

    def test_show_the_newest_movements_and_what_was_left(self, admin_client, sold_lamp):
        services.move_stock(product_id=sold_lamp.id, delta=7, reason="restock")
        answer = admin_client.get(page_of(sold_lamp))

        assert [row[2] for row in answer.context["movements"]["rows"]] == ["13", "6", "10"]

    def test_load_nothing_from_elsewhere(self, admin_client, sold_lamp):
        lists = [reverse("admin:index"), reverse(f"{PRODUCTS}_changelist")]
        for address in [*lists, page_of(sold_lamp)]:
            page = admin_client.get(address).content.decode()
            assert not re.findall(r'<(?!a )[^>]*(?:src|href)="(?:https?:)?//[^"]*"', page)


class TestTheStartPage:
    @pytest.fixture(autouse=True, params=["new", "counted"])
    def _counted(self, request, monkeypatch):
        """What has not been counted yet is shown like what has."""
        if request.param == "counted":
            look = figures.sold

            def count_and_look(*arguments: object, **facts: object) -> object:
                figures.count()
                figures.merge()
                return look(*arguments, **facts)

            monkeypatch.setattr(figures, "sold", count_and_look)

    @staticmethod
    def shown(admin_client) -> tuple[str, str, list[str]]:
        """The tile of what was sold, and what is said of the products that run low."""
        context = admin_client.get(reverse("admin:index")).context
        [tile] = [each for each in context["tiles"] if each.title.startswith("Units sold")]
        [low] = [each for each in context["cards"] if each.title == "Low stock"]
        return tile.value, tile.note, [bar["note"] for bar in low.bars]

    def test_counts_what_was_sold_of_the_products_that_were(self, admin_client, sold_lamp):
        services.create_product(name="Shelf", price=1, qty=50)
        archived = services.create_product(name="Chair", price=1, qty=50)
        services.archive_product(archived.id)

        value, note, [lasts] = self.shown(admin_client)
        assert (value, note) == ("4", "of 1 product")
        assert lasts.startswith("4 sold in the last hour, lasts about ")
        assert sold_lamp.movements.count() == 2

    def test_counts_no_units_that_were_given_back(self, admin_client, lamp):
        orders = [an_order(lamp, quantity) for quantity in (3, 5)]
        reserve(orders)
        cancel(orders[1])
        lasts = ["3 sold in the last hour, lasts about 2 h"]
        assert self.shown(admin_client) == ("3", "of 1 product", lasts)

        cancel(orders[0])
        assert self.shown(admin_client) == ("0", "of 0 products", ["no sales in the last hour"])

    def test_sells_no_less_than_nothing(self, admin_client, lamp):
        order, long_ago = an_order(lamp, 3), timezone.now() - timedelta(hours=2)
        reserve([order])
        StockMovement.objects.filter(reason="order").update(created_at=long_ago)
        cancel(order)

        assert self.shown(admin_client) == ("0", "of 0 products", ["no sales in the last hour"])

    def test_lists_what_sells_best_at_the_price_that_it_was_sold_at(self, admin_client, lamp):
        shade = services.create_product(name="Shade", price=500, qty=50)
        orders = [an_order(lamp, 3), an_order(shade, 7), an_order(shade, 20)]
        reserve(orders)
        services.update_product(shade.id, price=900)
        cancel(orders[2])

        cards = admin_client.get(reverse("admin:index") + "?range=week").context["cards"]
        [best] = [each for each in cards if each.title == "Best sellers"]
        assert [(bar["title"], bar["description"]) for bar in best.bars] == [
            ("Shade", "7 units, 35.00 EUR"),
            ("Lamp", "3 units, 5,700.00 EUR"),
        ]
        assert best.bars[0]["href"] == page_of(shade)

    def test_draws_no_initial_stock(self, admin_client, sold_lamp):
        services.move_stock(product_id=sold_lamp.id, delta=7, reason="restock")
        taken, *_others = admin_client.get(reverse("admin:index")).context["cards"]

        drawn = json.loads(taken.chart)["datasets"]
        assert [sum(each["data"]) for each in drawn] == [4, 7]

    def test_counts_all_that_is_sold_out_however_long_ago_it_moved(self, admin_client, sold_lamp):
        for name in ("a", "b"):
            services.create_product(name=name, price=1, qty=0)
        services.archive_product(services.create_product(name="c", price=1, qty=0).id)
        shelf = services.create_product(name="Shelf", price=1, qty=50)
        Product.objects.filter(id=shelf.id).update(low_stock=60)
        StockMovement.objects.exclude(product=sold_lamp).delete()

        context = admin_client.get(reverse("admin:index")).context
        [tile] = [each for each in context["tiles"] if each.title == "Out of stock"]
        [low] = [each for each in context["cards"] if each.title == "Low stock"]
        assert (tile.value, tile.note) == ("2", "2 more run low")
        # First what sells, although it is not the least.
        assert [bar["title"] for bar in low.bars] == ["Lamp", "b", "a", "Shelf"]

    @staticmethod
    def refused(admin_client) -> tuple[list[str], str, list[str]]:
        context = admin_client.get(reverse("admin:index")).context
        cards = {each.title: each for each in context["cards"]}
        by_reason, lost = cards["Refused orders by reason"], cards["Lost demand"]
        bars = [
            [f"{bar['title']}: {bar['description']}" for bar in each.bars]
            for each in (by_reason, lost)
        ]
        return bars[0], by_reason.note, bars[1]

    def test_counts_the_orders_that_the_api_refused_with_those_that_were_accepted(
        self, admin_client, sold_lamp, monkeypatch
    ):
        get_redis_connection("default").flushdb()
        shade = services.create_product(name="Shade", price=1, qty=0)
        for product_id in (sold_lamp.id, shade.id, shade.id, shade.id, new_id()):
            refusals.count("insufficient_stock", product_id)
        refusals.count("product_not_found", None)
        eventually(lambda: sum(map(Counter.total, (refusals.slices(0) or {}).values())) == 6)
        expected = (
            ["Not enough in stock: 6 (86%)", "No such product: 1 (14%)"],
            "At once or after they were accepted",
            ["Shade: 3 orders", "Lamp: 2 orders"],
        )
        assert self.refused(admin_client) == expected

        # Redis forgets them after an hour: they are kept before, each once.
        monkeypatch.setattr(refusals, "is_over", lambda _slice: True)
        for _ in range(2):
            figures.count()
            figures.merge()
            assert self.refused(admin_client) == expected
        get_redis_connection("default").flushdb()
        assert self.refused(admin_client) == expected

    @pytest.mark.usefixtures("sold_lamp", "without_redis")
    def test_says_that_it_does_not_know_what_the_api_refused(self, admin_client):
        by_reason, note, lost = self.refused(admin_client)

        assert (by_reason, lost) == (["Not enough in stock: 1 (100%)"], ["Lamp: 1 order"])
        assert "Redis, which knows them, is away" in note


class TestALongName:
    NAME = "x" * 255

    @pytest.mark.parametrize("page", ["products_product", "products_stockmovement"])
    def test_is_cut_off_in_lists_and_whole_in_its_title(self, admin_client, page):
        services.create_product(name=self.NAME, price=1, qty=1)
        content = admin_client.get(reverse(f"admin:{page}_changelist")).content.decode()

        assert f'truncate" title="{self.NAME}">' in content


class TestUpdatingStock:
    @staticmethod
    def submit(admin_client, product, **facts):
        return admin_client.post(
            reverse("admin:products_product_restock", args=[product.pk]),
            {"confirmed": "1", "key": new_id(), **facts},
        )

    def test_is_shown_before_anything_happens(self, admin_client, lamp):
        answer = admin_client.get(reverse("admin:products_product_restock", args=[lamp.pk]))

        assert b'name="delta"' in answer.content
        assert lamp.movements.count() == 1

    def test_moves_it_announces_it_and_logs_who_did(self, admin_client, admin_user, lamp):
        answer = self.submit(admin_client, lamp, delta="5", reason="restock")

        lamp.refresh_from_db()
        assert answer["Location"] == page_of(lamp)
        assert lamp.qty == 15
        assert OutgoingEvent.objects.filter(routing_key="product.updated").count() == 1
        assert LogEntry.objects.get().user == admin_user

    @pytest.mark.parametrize(
        ("delta", "said"),
        [("-11", "Only 10 are in stock."), ("0", ""), ("", ""), ("1.5", ""), (str(2**31), "")],
    )
    def test_says_what_is_wrong_and_moves_nothing(self, admin_client, lamp, delta, said):
        answer = self.submit(admin_client, lamp, delta=delta, reason="correction")

        assert (answer.status_code, said in answer.content.decode()) == (200, True)
        assert lamp.movements.count() == 1

    def test_comes_too_late_for_what_is_archived(self, admin_client, lamp):
        services.archive_product(lamp.id)
        self.submit(admin_client, lamp, delta="5", reason="restock")
        page = admin_client.get(page_of(lamp))

        assert said(page) == ["1 product left unchanged: archived."]
        assert lamp.movements.count() == 1

    def test_is_not_for_those_who_may_only_look(self, staff, lamp):
        client = staff("view_product")

        assert self.submit(client, lamp, delta="5", reason="restock").status_code == 403
        assert client.get(reverse("admin:products_product_import")).status_code == 403


def choose(admin_client, action: str, *products: Product, **facts: str):
    """Take an action with products of the list; what it said, and which rows it left."""
    selection = {"action": f"{action}_selected", "_selected_action": [str(p.pk) for p in products]}
    return admin_client.post(reverse(f"{PRODUCTS}_changelist"), {**selection, **facts}, follow=True)


def said(answer) -> list[str]:
    return [str(each) for each in answer.context["messages"]]


def history() -> list[str]:
    return list(LogEntry.objects.order_by("id").values_list("change_message", flat=True))


@pytest.fixture
def three(lamp) -> list[Product]:
    """A lamp of ten, a shelf of two, and a chair that is archived."""
    shelf = services.create_product(name="Shelf", price=500, qty=2)
    chair = services.create_product(name="Chair", price=700, qty=50)
    services.archive_product(chair.id)
    return [lamp, shelf, chair]


class TestUpdatingTheStockOfSeveral:
    def test_moves_each_that_can_and_says_which_cannot(self, admin_client, three):
        lamp, shelf, chair = three
        page = choose(admin_client, "restock", *three).content.decode()
        assert "Update the stock of 3 products?" in page
        key = re.search(r'name="key" value="([^"]+)"', page)[1]
        facts = {"confirmed": "1", "delta": "-5", "reason": "correction", "key": key}
        answer = choose(admin_client, "restock", *three, **facts)

        assert said(answer) == [
            "Product corrected by -5.",
            "1 product left unchanged: archived.",
            "1 product left unchanged: there is less in stock.",
        ]
        assert history() == ["Corrected by -5: stock 10 → 5"]
        # A second click: the page as it was sent before, and then with another number.
        again = choose(admin_client, "restock", *three, **facts)
        other = choose(admin_client, "restock", lamp, **{**facts, "delta": "1"})
        assert said(again) == said(answer)
        assert said(other) == ["1 product left unchanged: updated from the same page before."]
        for product, deltas in ((lamp, [10, -5]), (shelf, [2]), (chair, [50])):
            movements = product.movements.order_by("id")
            assert [each.delta for each in movements] == deltas

    @pytest.mark.parametrize("chosen", [[], ["x"], ["1" * 400], ["\0"]])
    @pytest.mark.parametrize("way", ["restock", "archive"])
    def test_is_none_of_what_the_list_has_no_more(self, admin_client, lamp, way, chosen):
        facts = {"action": f"{way}_selected", "_selected_action": chosen or [lamp.pk]}
        answer = admin_client.post(f"{reverse(f'{PRODUCTS}_changelist')}?stock=out", facts)

        assert said(admin_client.get(answer.url)) == [
            "What was selected is not in this list any more."
        ]

    def test_stays_within_what_a_product_may_have(self, admin_client, three):
        facts = {"confirmed": "1", "delta": str(2**31 - 5), "reason": "restock", "key": new_id()}
        answer = choose(admin_client, "restock", *three[:2], **facts)

        assert said(answer) == [
            "Product restocked by +2,147,483,643.",
            "1 product left unchanged: there would be too much in stock.",
        ]


class TestChangingThePriceOfSeveral:
    @staticmethod
    def confirm(admin_client, preview, *products: Product, **facts: str):
        seen = re.search(r'name="seen" value="(\w+)"', preview.content.decode())[1]
        return choose(admin_client, "change_price", *products, confirmed="1", seen=seen, **facts)

    @pytest.mark.parametrize(
        ("facts", "prices", "shown"),
        [
            (
                {"way": "percent", "amount": "-10"},
                [171_000, 450],
                ["1,900.00 EUR → 1,710.00 EUR", "5.00 EUR → 4.50 EUR"],
            ),
            # Half of the smallest unit counts as one.
            (
                {"way": "percent", "amount": "1"},
                [191_900, 505],
                ["1,900.00 EUR → 1,919.00 EUR", "5.00 EUR → 5.05 EUR"],
            ),
            (
                {"way": "to", "amount": "5"},
                [500, 500],
                ["1,900.00 EUR → 5.00 EUR", "5.00 EUR (stays: already at this price)"],
            ),
        ],
    )
    def test_shows_the_new_ones_and_then_takes_them(
        self, admin_client, three, facts, prices, shown
    ):
        assert b"Show new prices" in choose(admin_client, "change_price", *three).content
        preview = choose(admin_client, "change_price", *three, confirmed="1", **facts)
        for each in [*shown, "7.00 EUR (stays: archived)"]:
            assert each in preview.content.decode()
        assert [each.price for each in Product.objects.order_by("id")] == [190_000, 500, 700]

        answer = self.confirm(admin_client, preview, *three, **facts)

        assert [each.price for each in Product.objects.order_by("id")] == [*prices, 700]
        assert "1 product left unchanged: archived." in said(answer)
        assert f"Changed: price {shown[0]}" in history()
        changed = sum(old != new for old, new in zip((190_000, 500), prices, strict=True))
        assert OutgoingEvent.objects.filter(routing_key="product.updated").count() == changed

    @pytest.mark.parametrize(
        ("way", "amount"),
        [("percent", "1001"), ("percent", "-100"), ("percent", "1.5"), ("percent", ""),
         ("to", "0"), ("to", "-1"), ("to", str(2**53)), ("elsewhere", "1")],
    )  # fmt: skip
    def test_refuses_nonsense(self, admin_client, three, way, amount):
        page = choose(
            admin_client, "change_price", *three, confirmed="1", seen="", way=way, amount=amount
        )

        assert page.context["form"].errors
        assert b"Show new prices" in page.content

    def test_makes_none_that_is_not_possible(self, admin_client, lamp):
        services.update_product(lamp.id, price=2**53 - 1)
        cheap = services.create_product(name="Screw", price=1, qty=1)
        for each, amount in ((lamp, "1"), (cheap, "-51")):
            facts = {"way": "percent", "amount": amount}
            preview = choose(admin_client, "change_price", each, confirmed="1", **facts)
            answer = self.confirm(admin_client, preview, each, **facts)
            assert said(answer) == ["1 product left unchanged: no such price is possible."]

    def test_asks_again_when_one_has_changed_since_it_was_seen(
        self, admin_client, three, monkeypatch
    ):
        facts = {"way": "percent", "amount": "10"}
        preview = choose(admin_client, "change_price", *three, confirmed="1", **facts)
        services.update_product(three[0].id, price=7)
        again = self.confirm(admin_client, preview, *three, **facts)
        assert said(again) == ["Not changed: these are other prices than you have seen."]
        assert "0.07 EUR → 0.08 EUR" in again.content.decode()

        change = services.update_product

        def come_too_late(product_id, **arguments: object) -> object:
            change(product_id, price=9)
            return change(product_id, **arguments)

        monkeypatch.setattr(services, "update_product", come_too_late)
        answer = self.confirm(admin_client, again, *three, **facts)
        assert "2 products left unchanged: changed meanwhile." in said(answer)
        assert history() == []


class TestPuttingBackOnSale:
    def test_is_offered_for_what_is_archived_alone(self, admin_client, lamp):
        put_back = reverse("admin:products_product_put_back", args=[lamp.pk])
        assert put_back not in admin_client.get(page_of(lamp)).content.decode()
        services.archive_product(lamp.id)
        assert put_back in admin_client.get(page_of(lamp)).content.decode()

        admin_client.post(put_back, {"confirmed": "1"})

        lamp.refresh_from_db()
        assert lamp.archived_at is None
        assert cache.get(lamp.id).version == 3
        assert history() == ["Put back on sale."]

    def test_takes_several_and_leaves_what_is_for_sale(self, admin_client, three):
        answer = choose(admin_client, "put_back", *three, confirmed="1")

        assert said(answer) == [
            "Product put back on sale.",
            "2 products left unchanged: already for sale.",
        ]
        assert not Product.objects.exclude(archived_at=None).exists()


class TestArchivingSeveral:
    def test_asks_first_and_then_does_it(self, admin_client, lamp):
        page = reverse(f"{PRODUCTS}_changelist")
        selection = {"action": "archive_selected", "_selected_action": [str(lamp.pk)]}
        asked = admin_client.post(page, selection)
        lamp.refresh_from_db()
        assert lamp.archived_at is None
        assert b"Archive this product?" in asked.content

        admin_client.post(page, {**selection, "confirmed": "1"})
        lamp.refresh_from_db()
        assert lamp.archived_at is not None
        assert OutgoingEvent.objects.filter(routing_key="product.archived").count() == 1

        again = admin_client.post(page, {**selection, "confirmed": "1"}, follow=True)
        assert b"1 product left unchanged: already archived." in again.content
        assert LogEntry.objects.count() == 1


class TestImporting:
    @staticmethod
    def send(admin_client, content: bytes):
        file = SimpleUploadedFile("products.csv", content, "text/csv")
        facts = {"import_file": file, "format": "0", "resource": ""}
        return admin_client.post(reverse("admin:products_product_import"), facts)

    @classmethod
    def preview(cls, admin_client, *rows: str, columns: str = "id,name,price,qty"):
        return cls.send(admin_client, "\n".join([columns, *rows]).encode())

    @staticmethod
    def confirm(admin_client, preview):
        return admin_client.post(
            reverse("admin:products_product_process_import"),
            preview.context["confirm_form"].initial,
        )

    def test_previews_without_a_trace(self, admin_client, lamp):
        events = OutgoingEvent.objects.count()
        answer = self.preview(admin_client, ",Shelf,500,3", f"{lamp.id},Lamp 2,7,99")

        lamp.refresh_from_db()
        assert answer.context["result"].totals["new"] == 1
        assert (Product.objects.count(), lamp.name) == (1, "Lamp")
        assert OutgoingEvent.objects.count() == events
        assert cache.get(lamp.id).version == 1

    def test_makes_new_products_as_the_api_does(self, admin_client):
        preview = self.preview(admin_client, ", Shelf ,500,3")
        answer = self.confirm(admin_client, preview)

        product = Product.objects.get()
        assert answer.status_code == 302
        assert (product.name, product.price, product.qty) == ("Shelf", 500, 3)
        assert [movement.delta for movement in product.movements.all()] == [3]
        assert OutgoingEvent.objects.get().routing_key == "product.created"
        assert cache.get(product.id).version == 1

    def test_changes_name_and_price_and_never_the_stock(self, admin_client, lamp):
        preview = self.preview(admin_client, f"{lamp.id},Lamp 2,7,999")
        self.confirm(admin_client, preview)

        lamp.refresh_from_db()
        assert (lamp.name, lamp.price, lamp.qty) == ("Lamp 2", 7, 10)
        assert lamp.movements.count() == 1
        assert [each.price for each in lamp.prices.order_by("id")] == [190_000, 7]

    def test_shows_what_was_and_what_would_be_and_tells_the_history(self, admin_client, lamp):
        preview = self.preview(admin_client, f"{lamp.id},<Torch>,2000,99", ",Shelf,1500,3")

        changed, new = (row.diff for row in preview.context["result"].rows)
        assert changed[0] == str(lamp.id)
        assert changed[1:3] == ["<strong>Lamp → &lt;Torch&gt;</strong>",
                                "<strong>1,900.00 EUR → 20.00 EUR</strong>"]  # fmt: skip
        assert (changed[3], new) == ("10", ["", "Shelf", "15.00 EUR", "3"])
        self.confirm(admin_client, preview)
        assert history() == [
            "Imported: name Lamp → <Torch>, price 1,900.00 EUR → 20.00 EUR",
            "Imported.",
        ]

    def test_warns_of_second_products(self, admin_client, lamp):
        rows = [f"{lamp.id},Lamp,5,1", ", Lamp ,5,1", ",Lamps,5,1", ",Lamp,6,1"]
        page = self.preview(admin_client, *rows).content.decode()

        assert (
            "2 rows without an id have the name of an existing product; importing creates" in page
        )
        assert re.findall(r"<li>(Row \d+: \w+)</li>", page) == ["Row 2: Lamp", "Row 4: Lamp"]
        assert b"existing product" not in self.preview(admin_client, *rows[::2]).content

    def test_leaves_what_is_the_same_alone(self, admin_client, lamp):
        preview = self.preview(admin_client, f"{lamp.id},Lamp,190000,10", ",Shelf,5,1")
        self.confirm(admin_client, preview)

        lamp.refresh_from_db()
        assert (lamp.version, Product.objects.count()) == (1, 2)

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (",Shelf,5.5,1", "not a whole number"),
            (',Shelf,"1,000",1', "not a whole number"),
            (",Shelf,0,1", "between 1 and"),
            (",Shelf,5,-1", "between 0 and"),
            (",Shelf,5,", "cannot be null"),
            (",,5,1", "cannot be blank"),
            (f",{'x' * 256},5,1", "at most 255"),
            ("nonsense,Shelf,5,1", "no product"),
            (f"{new_id()},Shelf,5,1", "no product"),
        ],
    )
    def test_says_which_row_is_wrong_and_why(self, admin_client, row, reason):
        answer = self.preview(admin_client, ",Good,5,1", row)

        [invalid] = answer.context["result"].invalid_rows
        assert reason in str(invalid.error)
        assert "confirm_form" not in answer.context
        assert not Product.objects.exists()

    def test_skips_archived_products_and_takes_the_rest(self, admin_client, lamp):
        services.archive_product(lamp.id)
        preview = self.preview(admin_client, f"{lamp.id},Lamp 2,5,1", ",Shelf,5,1")
        assert b"Skipped" in preview.content
        assert b"Lamp (archived)" in preview.content
        self.confirm(admin_client, preview)

        lamp.refresh_from_db()
        assert (lamp.name, lamp.version) == ("Lamp", 2)
        assert Product.objects.filter(name="Shelf").exists()

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_takes_other_separators(self, admin_client, separator):
        content = "name,price,qty\nShelf,500,3".replace(",", separator)
        preview = self.send(admin_client, content.encode())
        self.confirm(admin_client, preview)

        product = Product.objects.get()
        assert (product.name, product.price, product.qty) == ("Shelf", 500, 3)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"Artikel,Preis\nShelf,5\n", "columns; missing: name and price."),
            (b"name,price,qty\nShelf,5,1,9\n", "The file is not a valid CSV file"),
            ("name,price,qty\nKühlschrank,5,1\n".encode("latin-1"), "The file is not UTF-8."),
        ],
    )
    def test_says_in_a_sentence_why_a_file_cannot_be_read(self, admin_client, content, said):
        page = self.send(admin_client, content).content.decode()

        assert said in page
        assert "Traceback" not in page
        assert "UnicodeDecodeError" not in page

    def test_shows_no_traceback_of_what_nobody_expected(self, admin_client, monkeypatch):
        def fail(*_arguments, **_options):
            raise RuntimeError("The database is away.")

        monkeypatch.setattr(ProductImport, "before_import", fail)
        page = self.preview(admin_client, ",Shelf,5,1").content

        assert b"The database is away." in page
        assert b"Traceback" not in page

    def test_refuses_a_file_with_too_many_rows(self, admin_client):
        answer = self.preview(admin_client, *[",Shelf,5,1"] * 1001)

        assert b"too many" in answer.content

    def test_says_when_the_file_is_gone(self, admin_client):
        preview = self.preview(admin_client, ",Shelf,500,3")
        self.confirm(admin_client, preview)
        answer = self.confirm(admin_client, preview)

        assert answer["Location"] == reverse("admin:products_product_import")
        assert Product.objects.count() == 1

    def test_says_when_the_cache_is_away(self, admin_client, request):
        preview = self.preview(admin_client, ",Shelf,500,3")
        request.getfixturevalue("without_redis")
        answer = self.confirm(admin_client, preview)

        assert answer["Location"] == reverse("admin:products_product_import")
        assert not Product.objects.exists()
        assert self.preview(admin_client, ",Shelf,500,3").status_code == 302


# A connection is given back after each chunk.
@pytest.mark.django_db(transaction=True)
class TestExporting:
    @staticmethod
    def rows(admin_client, query: str = "") -> list[dict[str, str]]:
        address = f"{reverse('admin:products_product_export')}{query}"
        answer = admin_client.post(address, {"format": "0", "resource": ""})
        assert answer["Content-Type"] == "text/csv"
        return list(csv.DictReader(io.StringIO(answer.getvalue().decode())))

    def test_gives_what_an_import_takes(self, admin_client, lamp):
        [row] = self.rows(admin_client)

        facts = (row["id"], row["name"], row["price"], row["qty"])
        assert facts == (str(lamp.id), "Lamp", "190000", "10")

    def test_follows_the_filter_of_the_list(self, admin_client, lamp):  # noqa: ARG002 - not out
        assert self.rows(admin_client, "?stock=out") == []

    def test_gives_all_from_chunk_to_chunk(self, admin_client, lamp, monkeypatch):
        monkeypatch.setattr("servicekit.backoffice.spreadsheets._CHUNK_ROWS", 2)
        for name in ("a", "b"):
            services.create_product(name=name, price=1, qty=1)

        assert [row["name"] for row in self.rows(admin_client)] == ["b", "a", lamp.name]

    @pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "''-1", "'quoted'"])
    def test_gives_no_formulae_and_the_same_names_back(self, admin_client, name):
        product = services.create_product(name=name, price=1, qty=1)
        [row] = self.rows(admin_client)
        assert not row["name"].startswith(("=", "+", "-", "@"))
        assert row["price"] == "1"

        changed = f"{row['id']},{row['name']},2"
        preview = TestImporting.preview(admin_client, changed, columns="id,name,price")
        TestImporting.confirm(admin_client, preview)
        product.refresh_from_db()
        assert (product.name, product.price) == (name, 2)
