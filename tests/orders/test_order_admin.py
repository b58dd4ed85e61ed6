"""The admin of the order service: looking at orders, and deciding about them."""

import csv
import io
import json
import re
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace
from urllib.parse import parse_qsl

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from orders_project.orders import services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order, OrderFigures
from orders_project.orders.selectors import OrderNotFound
from servicekit import worker_reports
from servicekit.backoffice import queues
from servicekit.backoffice.money import money
from servicekit.contracts.events import StockDecided
from servicekit.contracts.fields import MAX_INT64
from servicekit.database import figures
from servicekit.identifiers import new_id
from servicekit.messaging.consumer import ConsumerThread, Handled, Policy
from servicekit.messaging.envelope import received
from servicekit.outbox.models import OutgoingEvent
from servicekit.timestamps import now_in_milliseconds
from tests.orders.stock_news import rejected, released, reserved, settle
from tests.servicekit.private_broker import eventually, virtual_host
from tests.servicekit.worker import running_worker
from tools.chaos.proxy import Fault, Proxy

pytestmark = pytest.mark.django_db

ORDERS = "admin:orders_order"
LIST = "/admin/orders/order/"
Status = Order.Status


@pytest.fixture
def order(accepted_order):
    """Return a function that places an order and, unless it is to be PENDING, settles it."""

    def place(status: str = Status.CONFIRMED, **facts) -> Order:
        accepted = accepted_order(**facts)
        services.place_orders([accepted])
        if status == Status.CONFIRMED:
            settle(reserved(accepted))
        elif status == Status.REJECTED:
            settle(rejected(accepted))
        return Order.objects.get(id=accepted.id)

    return place


def listed(admin_client, query: str = "") -> list[Order]:
    answer = admin_client.get(LIST + query)
    assert answer.status_code == 200
    return list(answer.context["cl"].result_list)


class TestTheList:
    def test_shows_the_newest_first_with_readable_money(self, admin_client, order):
        older, newer = order(), order(total_price=1_234_567)
        answer = admin_client.get(LIST)

        assert list(answer.context["cl"].result_list) == [newer, older]
        assert b"12,345.67 EUR" in answer.content

    def test_finds_an_order_by_its_id_and_a_products_orders_by_the_products(
        self, admin_client, order
    ):
        first, second = order(), order()

        assert listed(admin_client, f"?q={first.id}") == [first]
        assert listed(admin_client, f"?q={second.product_id}") == [second]
        assert listed(admin_client, f"?q={new_id()}") == []

    @pytest.mark.parametrize(
        ("other", "admin"),
        [
            ({"public": "", "port": "3001"}, "http://testserver:3001/admin/"),
            ({"public": "https://products.example", "port": "3001"},
             "https://products.example/admin/"),
            ({"public": "", "port": ""}, None),
        ],
    )  # fmt: skip
    def test_and_the_page_lead_to_the_product_where_its_admin_is_known(
        self, admin_client, order, settings, other, admin
    ):
        settings.OTHER_SERVICE = {**settings.OTHER_SERVICE, **other}
        placed = order()
        page = f"products/product/{placed.product_id}/change/"

        for address in (LIST, f"{LIST}{placed.id}/change/"):
            content = admin_client.get(address).content.decode()
            assert (f'href="{admin}{page}"' in content) == (admin is not None)
            assert (page in content) == (admin is not None)

    def test_explains_that_it_does_not_know_an_order(self, admin_client):
        answer = admin_client.get(f"{LIST}{new_id()}/change/", follow=True)

        assert answer.redirect_chain == [(LIST, 302)]
        assert b"another system has placed it" in answer.content

    def test_says_that_half_an_id_is_none(self, admin_client, order):
        order()
        answer = admin_client.get(LIST, {"q": "0198"})

        assert list(answer.context["cl"].result_list) == []
        assert "“0198” is not a valid id" in answer.content.decode()

    def test_is_filtered_by_status(self, admin_client, order):
        order(Status.CONFIRMED)
        rejected = order(Status.REJECTED)

        assert listed(admin_client, "?status__exact=REJECTED") == [rejected]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("?created_at_from_0=2020-01-01&created_at_to_0=2020-01-02", 0),
            ("?created_at_from_0=2020-01-01&created_at_to_0=2020-02-01", 1),
            ("?created_at_from_0=2020-01-03", 1),
            ("?created_at_from_0=2020-01-03&created_at_from_1=10:00:00", 1),
            ("?created_at_from_0=2020-01-03&created_at_from_1=10:00:01", 0),
            ("?created_at_to_0=2020-01-03&created_at_to_1=09:00:00", 0),
            ("?created_at_to_0=2020-01-03", 1),
            ("?created_at_to_0=nonsense", 0),
            ("?created_at_to_1=10:00:00", 0),
        ],
    )
    def test_is_filtered_by_time(self, admin_client, order, query, found):
        order(created_at=datetime(2020, 1, 3, 10, tzinfo=UTC))
        answer = admin_client.get(LIST + query)

        assert len(answer.context["cl"].result_list) == found
        for sent in query[1:].split("&"):
            assert f'value="{sent.partition("=")[2]}"' in answer.content.decode()
        # The form says nothing of a day without a time: it is a whole one.
        assert b"Enter a valid" not in answer.content

    @pytest.mark.parametrize(
        ("last", "ago", "found"),
        [
            ("hour", timedelta(minutes=50), 1),
            ("hour", timedelta(minutes=70), 0),
            ("today", timedelta(), 1),
            ("today", timedelta(days=1), 0),
            ("day", timedelta(hours=23), 1),
            ("week", timedelta(days=8), 0),
            ("month", timedelta(days=29), 1),
        ],
    )
    def test_is_filtered_by_how_long_ago(self, admin_client, order, last, ago, found):
        order(created_at=now_in_milliseconds() - ago)

        assert len(listed(admin_client, f"?created_at_last={last}")) == found

    def test_has_a_chip_for_each_filter_that_leads_to_the_list_without_it(
        self, admin_client, order
    ):
        filters = {
            "q": str(order().product_id),
            "status__exact": "CONFIRMED",
            "created_at_last": "week",
            "quantity": "2",
        }
        chips = self.chips(admin_client, {**filters, "p": "2", "o": "7"})

        assert {name: value for name, value, _ in chips} == {
            "search": filters["q"], "status": "Confirmed", "time": "Last 7 days", "quantity": "2",
        }  # fmt: skip
        for (name, _, address), parameter in zip(chips, filters, strict=True):
            left = {key: value for key, value in filters.items() if key != parameter}
            assert dict(parse_qsl(address[1:])) == {**left, "o": "7"}, name
        time = {"created_at_from_0": "2020-01-03", "created_at_to_0": "2020-01-04"}
        unfilled = dict.fromkeys(["created_at_from_1", "created_at_to_1"], "")
        [(_, shown, address)] = self.chips(admin_client, {**time, **unfilled})
        assert (shown, address) == ("from 2020-01-03 to 2020-01-04", "?")
        assert self.chips(admin_client, {**unfilled, "o": "7"}) == []

    def test_begins_anew_when_other_filters_are_applied(self, admin_client):
        page = admin_client.get(LIST, {"p": "2", "o": "7", "created_at_from_1": ""}).content
        form = page.decode().partition('id="filter-form"')[2]

        assert re.findall(r'<input type="hidden" name="(\w+)"', form) == ["o"]

    @staticmethod
    def chips(admin_client, query) -> list[tuple[str, str, str]]:
        answer = admin_client.get(LIST, query)
        chips = answer.context["cl"].chips
        assert (b"Clear all" in answer.content) == bool(chips)
        return chips

    def test_is_sorted_by_time_and_by_nothing_else(self, admin_client, order):
        at = now_in_milliseconds()
        orders = [order(created_at=at, quantity=n, total_price=n) for n in (3, 1, 2)]
        oldest_first = sorted(orders, key=lambda each: each.id)

        assert listed(admin_client, "?o=7") == oldest_first
        for other in ("", "?o=-7", "?o=1", "?o=2.4.6"):
            assert listed(admin_client, other) == oldest_first[::-1], other
        page = admin_client.get(LIST).content.decode()
        assert re.findall(r"sortable column-(\w+)", page) == ["since"]

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("created_at_to_0=2020-13-01", "“2020-13-01” is not a valid date and time."),
            ("created_at_last=year", "“year” is not a valid date and time."),
            ("status__exact=%00", "The filter or page is not valid"),
            ("q=%00", "The filter or page is not valid"),
            ("p=0", "The filter or page is not valid"),
            ("nonsense=1", "The filter or page is not valid"),
        ],
    )
    def test_says_which_filter_it_does_not_understand(self, admin_client, query, said):
        answer = admin_client.get(f"{LIST}?{query}", follow=True)

        assert answer.status_code == 200
        assert said in answer.content.decode()

    @pytest.mark.parametrize(("count", "is_offered"), [(2, True), (3, False)])
    def test_offers_to_select_all_where_an_action_takes_all(
        self, admin_client, order, monkeypatch, count, is_offered
    ):
        monkeypatch.setattr("servicekit.backoffice.ledgers.MAX_SELECTED", 2)
        monkeypatch.setattr("orders_project.orders.admin.orders.OrderAdmin.list_per_page", 1)
        for _ in range(count):
            order()
        page = admin_client.get(LIST).content.decode()

        assert (f"Select all {count} orders" in page) == is_offered

    @pytest.mark.parametrize("page", ["add", "import"])
    def test_lets_nobody_write_orders(self, admin_client, order, page):
        assert admin_client.get(f"{LIST}{page}/").status_code in {302, 403}

        shown = admin_client.get(f"{LIST}{order().pk}/change/")
        assert (shown.status_code, b'name="_save"' in shown.content) == (200, False)


class TestTheTimeline:
    def test_is_drawn_on_the_orders_page_with_its_milliseconds(self, admin_client, order):
        # The clock of a transaction stands still, and the test is one.
        earlier = now_in_milliseconds() - timedelta(seconds=50)
        page = reverse(f"{ORDERS}_change", args=[order(created_at=earlier).pk])
        answer = admin_client.get(page)

        drawn = answer.context["timeline"]["table"]["rows"]
        (accepted, _at, gap), (stored, *_), *_others = drawn
        assert (accepted, gap, stored) == ("Accepted", "—", "Stored")
        assert all(gap.endswith("s") for _step, _at, gap in drawn[1:])
        assert len(answer.context["timeline"]["tracker"]) == len(drawn)

    def test_says_what_an_order_is_waiting_for_and_follows_it(self, admin_client, order):
        pending, confirmed = order(Status.PENDING), order()
        pages = [reverse(f"{ORDERS}_change", args=[each.pk]) for each in (pending, confirmed)]

        assert b"Waiting for stock" in admin_client.get(pages[0]).content
        assert b"refresh.js" not in admin_client.get(pages[1]).content
        services.cancel_order(confirmed.id)
        page = admin_client.get(pages[1]).content
        assert b"Waiting for its stock to be released" in page
        assert b"refresh.js" in page
        settle(released(confirmed))
        assert b"refresh.js" not in admin_client.get(pages[1]).content


class TestCancelling:
    @staticmethod
    def cancel(admin_client, order, **fields):
        address = reverse("admin:orders_order_cancel", args=[order.pk])
        return admin_client.post(address, {"confirmed": "1", **fields})

    def test_asks_first_and_is_left_by_a_button_that_cannot_be_taken_for_it(
        self, admin_client, order
    ):
        confirmed = order()
        address = reverse("admin:orders_order_cancel", args=[confirmed.pk])
        page = admin_client.get(address).content.decode()

        confirmed.refresh_from_db()
        assert "Cancel this order?" in page
        assert f"{confirmed.pk}: {confirmed.quantity} unit" in page
        assert money(confirmed.total_price) in page
        assert confirmed.status == Status.CONFIRMED
        buttons = [
            " ".join(re.sub(r"<[^>]+>", " ", each).split())
            for each in re.findall(r"<(?:a|button)\b.*?</(?:a|button)>", page, re.DOTALL)
        ]
        assert "Keep order" in buttons
        assert "Cancel" not in buttons

    @pytest.mark.parametrize(
        ("count", "question"), [(1, "Cancel this order? Its"), (2, "Cancel 2 orders? Their")]
    )
    def test_of_several_asks_about_one_or_many(self, admin_client, order, count, question):
        ids = [str(order().pk) for _ in range(count)]
        selected = {"action": "cancel_selected", "_selected_action": ids}
        answer = admin_client.post(LIST, selected)

        assert question in answer.content.decode()

    def test_cancels_announces_and_logs_who_did(self, admin_client, admin_user, order):
        confirmed = order()
        self.cancel(admin_client, confirmed)

        confirmed.refresh_from_db()
        assert confirmed.status == Status.CANCELLED
        assert OutgoingEvent.objects.filter(routing_key="order.cancelled").count() == 1
        assert LogEntry.objects.get().user == admin_user

    def test_keeps_the_reason_and_shows_it_with_the_order(self, admin_client, order):
        confirmed, other = order(), order()
        page = reverse(f"{ORDERS}_change", args=[confirmed.pk])
        assert b"Cancelled by" not in admin_client.get(page).content

        assert b"at most 500" in self.cancel(admin_client, confirmed, reason="x" * 501).content
        self.cancel(admin_client, confirmed, reason="Sent to a wrong address.")
        selected = {"action": "cancel_selected", "_selected_action": [other.pk], "confirmed": "1"}
        admin_client.post(LIST, {**selected, "reason": "Out of season."})

        text = admin_client.get(page).content.decode()
        assert "Cancelled by" in text
        assert "Sent to a wrong address." in text
        assert LogEntry.objects.last().change_message == "Cancelled: Sent to a wrong address."
        stored = Order.objects.get(pk=other.pk)
        assert (stored.cancelled_by, stored.cancel_reason) == ("admin", "Out of season.")

    def test_leaves_a_rejected_order_as_it_is(self, admin_client, order):
        rejected = order(Status.REJECTED)
        self.cancel(admin_client, rejected)

        rejected.refresh_from_db()
        assert rejected.status == Status.REJECTED
        assert not LogEntry.objects.exists()

    def test_says_which_order_is_not_there_any_more(self, admin_client, order, monkeypatch):
        def vanish(order_id: object, **_facts: object) -> None:
            raise OrderNotFound(order_id)

        monkeypatch.setattr(services, "cancel_order", vanish)
        answer = self.cancel(admin_client, order())

        assert "not found" in str([*get_messages(answer.wsgi_request)])

    def test_of_several_says_what_was_done_and_what_was_left_and_why(self, admin_client, order):
        before = [order(), order()]
        for each in before:
            services.cancel_order(each.id)
        chosen = [order(), order(), order(Status.REJECTED), *before]
        selected = {"action": "cancel_selected", "_selected_action": [each.pk for each in chosen]}
        answer = admin_client.post(LIST, {**selected, "confirmed": "1"}, follow=True)

        assert [str(each) for each in answer.context["messages"]] == [
            "2 orders cancelled.",
            "1 order left unchanged: rejected before.",
            "2 orders left unchanged: already cancelled.",
        ]
        assert LogEntry.objects.count() == 2

    def test_is_not_offered_by_its_address_when_it_is_too_late(self, admin_client, order):
        rejected = order(Status.REJECTED)
        address = reverse("admin:orders_order_cancel", args=[rejected.pk])
        answer = admin_client.get(address, follow=True)

        assert answer.request["PATH_INFO"] == reverse(f"{ORDERS}_change", args=[rejected.pk])
        assert b"No longer possible: the order changed." in answer.content

    def test_leads_to_the_log_in_when_the_session_is_over(self, admin_client, order, settings):
        address = reverse("admin:orders_order_cancel", args=[order().pk])
        page = admin_client.get(address).content.decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
        del admin_client.cookies[settings.SESSION_COOKIE_NAME]
        answer = admin_client.post(address, {"confirmed": "1", "csrfmiddlewaretoken": token})

        assert answer.url == f"{reverse('admin:login')}?next={address}"

    def test_is_not_for_those_who_may_only_look(self, staff, order):
        client, confirmed = staff("view_order"), order()

        assert self.cancel(client, confirmed).status_code == 403
        assert client.get(reverse(f"{ORDERS}_change", args=[confirmed.pk])).status_code == 200


class TestAnnouncingAgain:
    @staticmethod
    def announce(admin_client, order):
        answer = admin_client.post(
            reverse("admin:orders_order_announce", args=[order.pk]), {"confirmed": "1"}
        )
        return [str(each) for each in get_messages(answer.wsgi_request)]

    def test_has_the_watchdog_do_it_at_once_and_logs_who_did(self, admin_client, admin_user, order):
        pending, other = order(Status.PENDING), order(Status.PENDING)

        assert self.announce(admin_client, pending) == ["Order announced again."]
        assert [each.id for each in Order.objects.claim_overdue(10)] == [pending.id]
        assert other.recheck_at == Order.objects.get(id=other.id).recheck_at
        assert LogEntry.objects.get().user == admin_user

    def test_says_that_there_is_nothing_to_say_of_what_is_settled(self, admin_client, order):
        said = self.announce(admin_client, order(Status.CONFIRMED))

        assert said == ["1 order left unchanged: already decided."]
        assert not LogEntry.objects.exists()
        assert Order.objects.claim_overdue(10) == []


# A connection is given back after each chunk.
@pytest.mark.django_db(transaction=True)
class TestExporting:
    @staticmethod
    def rows(admin_client, query: str = "") -> list[dict[str, str]]:
        address = f"{reverse('admin:orders_order_export')}{query}"
        answer = admin_client.post(address, {"format": "0", "resource": ""})
        return list(csv.DictReader(io.StringIO(answer.getvalue().decode())))

    def test_follows_the_filter_of_the_list(self, admin_client, order):
        order()
        rejected = order(Status.REJECTED)

        [row] = self.rows(admin_client, "?status__exact=REJECTED")
        assert (row["id"], row["total_price"]) == (str(rejected.id), "380000")

    def test_tells_what_was_sold_and_at_which_price(self, admin_client, order):
        page = reverse("admin:orders_order_change", args=[order(product_name="=Lamp").id])

        [row] = self.rows(admin_client)
        assert (row["product_name"], row["unit_price"]) == ("'=Lamp", "190000")
        for address in (LIST, page):
            text = admin_client.get(address).content.decode()
            assert "=Lamp" in text
            assert "1,900.00 EUR" in text

    def test_gives_no_formulae(self, admin_client, order):
        rejected = order(Status.REJECTED)
        Order.objects.filter(pk=rejected.pk).update(reason="=1+1")

        [row] = self.rows(admin_client)
        assert row["reason"] == "'=1+1"

    @pytest.mark.parametrize(("query", "step"), [("", -1), ("?o=-7", -1), ("?o=7", 1)])
    def test_gives_all_in_the_order_of_the_list_from_chunk_to_chunk(
        self, admin_client, order, monkeypatch, query, step
    ):
        monkeypatch.setattr("servicekit.backoffice.spreadsheets._CHUNK_ROWS", 2)
        # Some are of the same millisecond, and the last is alone in its chunk.
        times = [now_in_milliseconds() + timedelta(milliseconds=n // 4) for n in range(9)]
        orders = sorted((time, order(created_at=time).id) for time in times)

        found = [row["id"] for row in self.rows(admin_client, query)]
        assert found == [str(order_id) for _, order_id in orders[::step]]

    def test_reads_no_further_than_its_client_does(self, admin_client, order, monkeypatch):
        monkeypatch.setattr("servicekit.backoffice.spreadsheets._CHUNK_ROWS", 1)
        for _ in range(3):
            order()
        address = reverse("admin:orders_order_export")
        answer = admin_client.post(address, {"format": "0", "resource": ""})
        parts = answer.streaming_content
        with CaptureQueriesContext(connection) as captured:
            header, first = next(parts), next(parts)
            # As the server does when its client is gone.
            answer.close()

        assert (header[:3], first.count(b"\r\n"), len(captured)) == (b"id,", 1, 1)
        assert list(parts) == []

    def test_is_not_for_those_who_may_not_even_look(self, staff):
        assert staff().get(reverse("admin:orders_order_export")).status_code == 403


class TestTheStartPage:
    def test_draws_what_there_is(self, admin_client, order):
        order()
        order(Status.REJECTED)
        order(Status.PENDING)
        # Its cancellation waits in the outbox.
        services.cancel_order(order().id)
        answer = admin_client.get(reverse("admin:index"))

        per_minute, by_status, *_others = answer.context["cards"]
        drawn = json.loads(per_minute.chart)["datasets"]
        assert [sum(each["data"]) for each in drawn] == [1, 1, 1, 1]
        assert [bar["description"] for bar in by_status.bars] == ["1 (25%)"] * 4
        values = [tile.value for tile in answer.context["tiles"]]
        assert values == ["4", "3,800.00 EUR", "1", "1", "0"]

    @pytest.mark.parametrize(
        ("query", "ages", "bars"),
        [
            ("", ["0 minutes", "50 minutes"], 60),
            ("?range=nonsense", ["0 minutes", "50 minutes"], 60),
            ("?range=day", ["0 minutes", "50 minutes", "20 hours"], 96),
            ("?range=week", ["0 minutes", "50 minutes", "20 hours", "5 days"], 168),
            ("?range=month", ["0 minutes", "50 minutes", "20 hours", "5 days", "28 days"], 30),
        ],
    )
    def test_looks_as_far_back_as_it_is_asked_to(self, admin_client, order, query, ages, bars):
        now = now_in_milliseconds()
        for age in ("0 minutes", "50 minutes", "20 hours", "5 days", "28 days", "70 days"):
            count, unit = age.split()
            order(created_at=now - timedelta(**{unit: int(count)}))
        # More than 64 bits, and not brought in after all.
        dear = [order(total_price=MAX_INT64, created_at=now) for _ in range(3)]
        services.cancel_order(dear[0].id)

        for _ in range(2):
            context = admin_client.get(reverse("admin:index") + query).context
            per_bar, *_others = context["cards"]
            chart = json.loads(per_bar.chart)
            drawn = {each["label"]: sum(each["data"]) for each in chart["datasets"]}
            assert drawn == {
                "Confirmed": len(ages) + 2, "Pending": 0, "Rejected": 0, "Cancelled": 1,
            }  # fmt: skip
            assert bars - bars // 7 - 4 <= len(chart["labels"]) <= bars
            assert context["tiles"][0].value == str(len(ages) + 3)
            assert context["tiles"][1].value == money(len(ages) * 380_000 + 2 * MAX_INT64)
            figures.merge(OrderFigures)

    def test_has_the_orders_that_were_there_before_they_were_counted(self, admin_client, order):
        for status, age in ((Status.CONFIRMED, 0), (Status.REJECTED, 20), (Status.CONFIRMED, 20)):
            order(status, created_at=now_in_milliseconds() - timedelta(days=age))
        figures.merge(OrderFigures)
        order(Status.PENDING)

        def shown() -> list[tuple[list[int], list[str]]]:
            contexts = [
                admin_client.get(reverse("admin:index") + f"?range={key}").context
                for key in figures.RANGES
            ]
            return [
                (
                    [
                        sum(each["data"])
                        for each in json.loads(context["cards"][0].chart)["datasets"]
                    ],
                    [tile.value for tile in context["tiles"]],
                )
                for context in contexts
            ]

        before = shown()
        # One is counted already, and not merged yet.
        OrderFigures.objects.filter(period__gt=0).delete()
        assert shown() != before
        name = "orders_project.orders.migrations.0007_fill_order_figures"
        [fill] = import_module(name).Migration.operations
        with connection.cursor() as cursor:
            cursor.execute(fill.sql)
        assert shown() == before

    def test_says_in_a_sentence_that_there_is_nothing(self, admin_client):
        answer = admin_client.get(reverse("admin:index"))

        # And offers no palette, which could not answer.
        assert b"opencommand" not in answer.content
        assert b"No orders in the last hour" in answer.content
        assert b"No message has failed." in answer.content

    @pytest.mark.parametrize("requires_key", [False, True])
    def test_says_that_the_api_is_open_until_it_takes_keys(
        self, admin_client, settings, requires_key
    ):
        settings.REQUIRE_API_KEY = requires_key

        content = admin_client.get(reverse("admin:index")).content

        assert (b"open to everybody who can reach it" in content) != requires_key

    # Client frames: four make the connection, the fifth opens the channel that asks.
    @pytest.mark.parametrize("frame", [1, 5])
    def test_does_without_the_broker(self, admin_client, settings, broker, frame):
        with Proxy(broker.url) as line:
            settings.BROKER_URL = line.url
            fault = line.arm(Fault("cut before", frame, "client"))
            answer = admin_client.get(reverse("admin:index"))

        assert fault.reached.is_set()
        assert b"The broker does not answer" in answer.content

    def test_shows_how_long_the_queues_are(self, admin_client, settings, broker):
        settings.BROKER_URL = broker.url
        settings.WORKER_QUEUES = ["there", "missing"]
        broker.declare_queue("there")
        with broker.channel() as channel:
            channel.basic_publish(channel.prepare_message(b"x"), routing_key="there")
        answer = admin_client.get(reverse("admin:index"))
        broker.delete_queue("there")

        there, missing = self.rows(answer)
        assert there[:4] == ["there", "1", "0", "—"]
        assert "no consumer" in there[4]
        assert "does not exist" in missing[1]

    def test_shows_a_consumer_that_makes_no_progress(
        self, admin_client, settings, broker, monkeypatch
    ):
        monkeypatch.setattr(queues, "PATIENCE_SECONDS", 5)
        settings.BROKER_URL, settings.WORKER_QUEUES = broker.url, ["of a thread that hangs"]
        [name] = settings.WORKER_QUEUES
        begun, may_end = threading.Event(), threading.Event()
        source = SimpleNamespace(
            queue=name,
            declare=lambda channel: channel.queue_declare(name, durable=True, auto_delete=False),
            read=lambda delivery: received(StockDecided(decisions=[]), delivery),
            handle=lambda _batch: (begun.set(), may_end.wait(120), Handled())[-1],
        )
        broker.declare_queue(name)
        with broker.channel() as channel:
            stamp = {"timestamp_in_ms": str(int(time.time() * 1000) - 3 * 60_000)}
            message = channel.prepare_message(b"{}", headers=stamp)
            for _ in range(2):
                channel.basic_publish(message, routing_key=name)
        consumer = ConsumerThread(
            "hangs", [source], broker_url=broker.url, policy=Policy(is_held=bool, batch_limit=1)
        )
        consumer.start()
        try:
            assert begun.wait(60)
            eventually(lambda: "no progress for" in self.told(admin_client)[4])
            assert self.told(admin_client)[1:4] in (["0", "1+", "3 min"], ["0", "2+", "3 min"])
        finally:
            may_end.set()

        eventually(lambda: self.told(admin_client)[2:5] == ["0", "—", "1"])
        consumer.stop()
        consumer.join(30)
        broker.delete_queue(name)

    # Its watchdog stores what it finds in Redis, which must not stay for the tests after this one.
    @pytest.mark.django_db(transaction=True)
    def test_shows_a_worker_that_hangs_as_a_whole_and_what_it_may_have_to_store(
        self, admin_client, settings, monkeypatch, tmp_path
    ):
        monkeypatch.setattr(queues, "PATIENCE_SECONDS", 5)
        settings.WORKER_QUEUES = [PersistOrders.queue]
        with virtual_host() as broker, running_worker("orders", broker, tmp_path) as worker:
            settings.BROKER_URL = broker.url
            eventually(lambda: self.row(admin_client)[1:5] == ["0", "0", "—", "1"])
            worker.send_signal(signal.SIGSTOP)
            try:
                eventually(lambda: "no sign of life for" in self.row(admin_client)[4])
                answer = admin_client.get(reverse("admin:index"))
            finally:
                worker.send_signal(signal.SIGCONT)
            assert b"how many are not stored yet is unknown" in answer.content
            eventually(lambda: self.row(admin_client)[4] == "1")

    @pytest.mark.usefixtures("without_redis")
    def test_does_without_what_workers_report(self, admin_client, settings, broker_with_queue):
        settings.BROKER_URL, settings.WORKER_QUEUES = broker_with_queue.url, [PersistOrders.queue]
        with broker_with_queue.channel() as channel:
            channel.basic_consume(PersistOrders.queue, callback=lambda _: None)
            eventually(lambda: self.row(admin_client)[2:5] == ["—", "—", "1"])
            answer = admin_client.get(reverse("admin:index"))
            assert b"how many are not stored yet is unknown" in answer.content

    def told(self, admin_client) -> list[str]:
        worker_reports.tell()
        return self.row(admin_client)

    def row(self, admin_client) -> list[str]:
        return self.rows(admin_client.get(reverse("admin:index")))[0]

    @staticmethod
    def rows(answer) -> list[list[str]]:
        [queues] = [card for card in answer.context["cards"] if card.title == "Queues"]
        # A busy broker may take longer to answer than a page waits.
        return queues.table.get("rows", [[""] * 6])
