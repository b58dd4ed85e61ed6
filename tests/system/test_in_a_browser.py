"""What the people do who run the shop, in a real browser, with both admins and the API."""

import csv
import io
import json
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import NARROW, WIDE, Watch, found_by_axe, one_page_of_each_kind, painted
from kombu import Connection
from playwright.sync_api import Browser, Locator, Page, expect
from shop import Shop, eventually

from tools.chaos.harness import Harness

GREEN, SKY = "#10b981", "#0ea5e9"


class Admins:
    """Both admins, as one person uses them."""

    def __init__(self, page: Page, shop: Shop) -> None:
        self.page = page
        self.environment = shop.environment
        self.products = shop.products.removesuffix("/products") + "/admin/"
        self.orders = shop.orders.removesuffix("/orders") + "/admin/"

    def log_in_to_both(self) -> None:
        self._log_in(self.products)
        self._log_in(self.orders)

    def _log_in(self, address: str) -> None:
        self.page.goto(address)
        self.page.locator("[name=username]").fill(self.environment["ADMIN_USERNAME"])
        self.page.locator("[name=password]").fill(self.environment["ADMIN_PASSWORD"])
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.locator("#dashboard")).to_be_visible()

    def order(self, order_id: str) -> None:
        self.page.goto(f"{self.orders}orders/order/{order_id}/change/")

    def product(self, product_id: str) -> None:
        self.page.goto(f"{self.products}products/product/{product_id}/change/")

    def action(self, name: str) -> Locator:
        # Its icon is a word to a browser.
        return self.page.get_by_role("link", name=re.compile(rf"(^|\s){name}$"))

    def decide(self, action: str, answer: str, **fields: str) -> None:
        """Choose an action of the page, fill in what it asks, and confirm it."""
        self.action(action).click()
        for name, value in fields.items():
            self.page.locator(f"[name={name}]").fill(value)
        self.page.get_by_role("button", name=answer, exact=True).click()

    def bury(self, product_id: str) -> dict[str, Any]:
        """Publish an order that no consumer can read; be on the list that shows it."""
        body = {"orderId": time.time_ns() // 1000, "productId": product_id, "quantity": 0}
        with Connection(self.environment["BROKER_URL"]) as connection:
            producer = connection.Producer(serializer="json")
            producer.publish(body, exchange="order.exchange", routing_key="order.created")
        self.page.goto(self.products + "dead_letters/deadletter/?status__exact=WAITING")
        self.see_soon(lambda: self.page.locator("#main"), str(body["orderId"]))
        return body

    def see_soon(self, look: Callable[[], Locator], text: str) -> None:
        """Look again and again until the page says so."""

        def probe() -> bool:
            self.page.reload()
            # Badges are in capitals.
            return text.upper() in look().inner_text().upper()

        eventually(probe)

    def said(self, text: str) -> None:
        expect(self.page.locator("#main")).to_contain_text(text)


@pytest.fixture(scope="module")
def cookies(browser: Browser, stack: Harness) -> list[Any]:
    """What a browser remembers of somebody who is logged in to both."""
    page = browser.new_page()
    Admins(page, Shop(stack.environment)).log_in_to_both()
    cookies: list[Any] = page.context.cookies()
    page.close()
    return cookies


@pytest.fixture
def admins(page: Page, shop: Shop, cookies: list[Any]) -> Admins:
    """Both admins, for somebody who is logged in."""
    page.context.add_cookies(cookies)
    return Admins(page, shop)


def fact(page: Page, label: str) -> Locator:
    """Return what stands beside a label."""
    return page.locator("label", has_text=re.compile(rf"^\s*{label}\s*$", re.IGNORECASE)).locator(
        "xpath=../.."
    )


class TestTheWatch:
    def test_sees_what_no_page_may_do(self, browser: Browser, shop: Shop) -> None:
        # Proves that the other tests would fail if a page asked a stranger, complained, or
        # missed a part of itself. Nothing listens on port 1.
        service = urlsplit(shop.products).netloc
        watch = Watch(ours={service})
        context = browser.new_context()
        watch.over(context)
        page = context.new_page()
        page.goto(shop.products)
        with page.expect_event("console", lambda message: message.text == "seen"):
            page.set_content(
                f"""<img src="http://127.0.0.1:1/logo.png">
                <img src="http://{service}/static/nowhere.png">
                <script>console.error("oh"); addEventListener("load", () => console.log("seen"))
                </script>"""
            )
        context.close()

        assert watch.strangers == ["http://127.0.0.1:1/logo.png"]
        assert watch.missing == [f"404 http://{service}/static/nowhere.png"]
        assert "oh" in watch.complaints


class TestTheAdmins:
    def test_are_open_side_by_side_on_one_host_and_left_one_by_one(
        self, page: Page, shop: Shop
    ) -> None:
        admins = Admins(page, shop)
        admins.log_in_to_both()

        # Cookies know hosts and no ports: each service must have names of its own for them.
        page.goto(admins.products)
        expect(page.locator("#dashboard")).to_contain_text("Units sold")
        page.goto(admins.orders)
        expect(page.locator("#dashboard")).to_contain_text("Orders per minute")

        page.locator("#logout-form").evaluate("form => form.submit()")
        expect(page).to_have_url(admins.orders + "logout/")
        page.goto(admins.orders)
        expect(page.locator("[name=password]")).to_be_visible()

        page.goto(admins.products)
        expect(page.locator("#dashboard")).to_be_visible()


class TestAnOrder:
    def test_of_a_new_product_is_followed_to_the_end(self, admins: Admins, page: Page) -> None:
        page.goto(admins.products + "products/product/")
        page.locator("a[href*='/product/add/']").first.click()
        page.locator("[name=name]").fill("Brass lamp")
        page.locator("[name=price]").fill("189")
        page.locator("[name=qty]").fill("10")
        page.get_by_role("button", name="Save and continue editing").click()
        admins.said("was added successfully")
        product_id = page.url.split("/")[-3]
        expect(fact(page, "Units")).to_contain_text("10")

        page.goto(admins.orders.removesuffix("admin/") + "orders")
        body = json.dumps({"productId": product_id, "quantity": 3})
        page.locator("textarea[name=_content]").fill(body)
        page.get_by_role("button", name="POST", exact=True).click()
        answer = page.locator(".response-info pre")
        expect(answer).to_contain_text("HTTP 201 Created")
        order_id = json.loads(answer.inner_text().partition("\n\n")[2])["id"]

        admins.order(order_id)
        admins.see_soon(lambda: fact(page, "Status"), "Confirmed")
        expect(fact(page, "Total")).to_contain_text("567.00 EUR")
        steps = page.locator("tr.data-row td:first-child")
        expect(steps).to_have_text(["Accepted", "Stored", "Announced", "Reserved", "Settled"])
        # All but the first tell how long they took.
        expect(
            page.locator("tr.data-row td:last-child", has_text=re.compile(r"\d m?s\s*$"))
        ).to_have_count(4)

        # Both admins lead to each other.
        fact(page, "Product id").get_by_role("link").click()
        expect(fact(page, "Units")).to_contain_text("7")
        page.locator("tr.data-row").first.get_by_role("link", name=order_id).click()
        expect(fact(page, "Status")).to_contain_text("Confirmed")
        page.goto(f"{admins.orders}orders/order/?q={order_id}")
        page.get_by_role("link", name="Open the product").click()
        expect(page.locator("[name=name]")).to_have_value("Brass lamp")

    def test_is_cancelled_and_its_units_are_back(
        self, admins: Admins, page: Page, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=5)
        order = shop.order(lamp["id"], 2).json()
        assert shop.final_status(order["id"]) == "CONFIRMED"

        admins.order(order["id"])
        admins.decide("Cancel order", "Cancel order", reason="Ordered by mistake.")
        admins.said("Order cancelled.")

        admins.see_soon(lambda: page.locator("#main"), "Released")
        expect(fact(page, "Status")).to_contain_text("Cancelled")
        expect(fact(page, "Cancelled by")).to_contain_text(shop.environment["ADMIN_USERNAME"])
        expect(fact(page, "Why cancelled")).to_contain_text("Ordered by mistake.")
        expect(admins.action("Cancel order")).to_have_count(0)
        assert shop.product(lamp["id"])["qty"] == 5


class TestAProduct:
    def test_is_restocked(self, admins: Admins, page: Page, shop: Shop) -> None:
        lamp = shop.create_product(qty=2, name="Lamp to restock")

        admins.product(lamp["id"])
        admins.decide("Update stock", "Update stock", delta="40")

        admins.said("Product restocked by +40.")
        expect(page.locator("tr.data-row").first).to_contain_text("Restock")
        assert shop.product(lamp["id"])["qty"] == 42

    def test_is_archived_and_put_back_on_sale(self, admins: Admins, shop: Shop) -> None:
        lamp = shop.create_product(qty=5)
        assert shop.final_status(shop.order(lamp["id"]).json()["id"]) == "CONFIRMED"
        admins.product(lamp["id"])
        admins.decide("Archive", "Archive")
        admins.said("Product archived.")
        # Who sells it knows its price for some seconds more.
        eventually(lambda: shop.order(lamp["id"]).status_code == 404)

        admins.decide("Put back on sale", "Put back on sale")
        admins.said("Product put back on sale.")

        eventually(lambda: shop.order(lamp["id"]).status_code == 201)
        expect(admins.action("Put back on sale")).to_have_count(0)
        shop.final_statuses()
        assert shop.ledger().differences == []

    def test_gets_its_price_with_others_once_that_is_seen(
        self, admins: Admins, page: Page, shop: Shop
    ) -> None:
        name = f"Lamp {time.time_ns()}"
        lamps = [shop.create_product(qty=0, price=price, name=name)["id"] for price in (1000, 3)]
        page.goto(f"{admins.products}products/product/?q={name}")
        for each in lamps:
            page.locator(f"[name=_selected_action][value='{each}']").check()
        assert found_by_axe(page) == []
        page.locator("[name=action]").select_option("Change price")
        page.get_by_role("button", name="Run").click()
        page.locator("[name=amount]").fill("-10")
        page.get_by_role("button", name="Show new prices").click()
        admins.said("10.00 EUR → 9.00 EUR")
        admins.said("0.03 EUR (stays: already at this price)")
        assert found_by_axe(page) == []
        page.get_by_role("button", name="Change price").click()

        admins.said("Product changed.")
        assert [shop.product(each)["price"] for each in lamps] == [900, 3]


class TestADeadLetter:
    def test_is_corrected_and_replayed(self, admins: Admins, page: Page, shop: Shop) -> None:
        lamp = shop.create_product(qty=10)
        body = admins.bury(lamp["id"])
        order_id = body["orderId"]
        row = page.locator("#result_list tr", has_text=str(order_id))
        expect(row).to_contain_text("$.quantity")
        row.get_by_role("link").first.click()
        expect(fact(page, "Reason")).to_contain_text("Expected `int` >= 1")

        page.locator("[name=body_text]").fill(json.dumps({"orderId": order_id}))
        page.get_by_role("button", name="Save and replay").click()
        admins.said("Object missing required field `productId`")
        page.locator("[name=body_text]").fill(json.dumps({**body, "quantity": 4}))
        # Who leaves now, to replay what is not saved, is asked first.
        with page.expect_event("dialog") as warning:
            page.once("dialog", lambda asked: asked.dismiss())
            admins.action("Replay").click(no_wait_after=True)
        assert warning.value.type == "beforeunload"
        page.get_by_role("button", name="Save and continue editing").click()
        admins.said("was changed successfully")
        admins.action("Replay").click()
        admins.said("Today's contract would accept it.")
        page.go_back()
        page.get_by_role("button", name="Save and replay").click()
        admins.said("Dead letter saved and queued for replay.")

        admins.see_soon(lambda: fact(page, "Status"), "Replayed")
        history = page.locator("#main ol")
        expect(history.locator("strong").last).to_have_text("Received")
        expect(history).to_contain_text(f"by {shop.environment['ADMIN_USERNAME']}")
        eventually(lambda: shop.product(lamp["id"])["qty"] == 6)
        page.reload()
        fact(page, "Result").get_by_role("link", name="Stock movement -4").click()
        expect(page.locator("#result_list")).to_contain_text(str(order_id))
        assert shop.ledger().differences == []

    def test_is_discarded_with_all_that_were_refused_alike(
        self, admins: Admins, page: Page, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=10)
        for _ in range(2):
            admins.bury(lamp["id"])
        page.get_by_role("link", name="By reason").click()
        group = page.locator("tr.data-row", has_text="$.quantity")
        count = int(group.locator("td").nth(3).inner_text())
        group.get_by_role("link", name="Discard").click()
        admins.said(f"{count} would be refused")
        page.locator("[name=note]").fill("nobody can order nothing")
        page.get_by_role("button", name="Discard", exact=True).click()

        admins.said(f"{count} dead letters discarded.")
        expect(group).to_have_count(0)


class TestAFileOfProducts:
    def test_goes_out_is_changed_and_comes_in_again(
        self, admins: Admins, page: Page, shop: Shop
    ) -> None:
        name = f"Lamp of {time.time_ns()}"
        lamp = shop.create_product(qty=3, price=100, name=name)

        page.goto(f"{admins.products}products/product/?q={name}")
        page.get_by_role("link", name="Export").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Submit").click()
        rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
        assert [(row["id"], row["price"], row["qty"]) for row in rows] == [(lamp["id"], "100", "3")]

        changed = f"id,name,price,qty\n{lamp['id']},{name},250,99\n,{name} II,300,8\n"
        page.goto(admins.products + "products/product/import/")
        page.locator("[name=import_file]").set_input_files(
            {"name": "products.csv", "mimeType": "text/csv", "buffer": changed.encode()}
        )
        page.get_by_role("button", name="Submit").click()
        # Nothing has happened yet: this is the preview.
        expect(page.locator("#main")).to_contain_text(f"{name} II")
        assert shop.product(lamp["id"])["price"] == 100
        page.get_by_role("button", name="Confirm import").click()

        admins.said("Imported: 1 new, 1 changed, 0 unchanged.")
        after = shop.product(lamp["id"])
        # The stock of what is sold already is no column of a file.
        assert (after["price"], after["qty"]) == (250, 3)


class TestTheDashboards:
    def test_draw_what_happened(self, admins: Admins, page: Page, shop: Shop) -> None:
        # More than any other test sells, so that it leads the list of what runs low.
        lamp = shop.create_product(qty=5_000_002, name="Lamp that sells")
        for _ in range(10):
            shop.order(lamp["id"], 500_000)
        shop.order(lamp["id"], 2)
        shop.final_statuses()

        page.goto(admins.orders)
        assert number(tile(page, "Orders")) >= 11
        assert float(tile(page, "Revenue").inner_text().split()[0].replace(",", "")) >= 5_000_002
        assert GREEN in painted(page, "Orders per minute")
        expect(card(page, "By status").locator(".bar-success")).to_be_visible()
        expect(card(page, "Queues").locator("tr.data-row")).to_have_count(3)

        page.goto(admins.products)
        assert number(tile(page, "Units sold")) >= 5_000_002
        assert SKY in painted(page, "Stock taken and added per minute")
        best = card(page, "Best sellers").locator("li").first
        expect(best).to_contain_text("Lamp that sells")
        expect(best).to_contain_text("5,000,002 units")
        low = card(page, "Low stock").locator("li", has_text="Lamp that sells").first
        expect(low).to_contain_text("0 left")
        expect(low).to_contain_text("5,000,002 sold in the last hour")

        low.get_by_role("link").click()
        expect(page.locator("[name=name]")).to_have_value("Lamp that sells")

    def test_are_drawn_dark_where_people_want_it_dark(
        self, admins: Admins, page: Page, shop: Shop
    ) -> None:
        shop.order(shop.create_product(qty=5)["id"])
        shop.final_statuses()

        for scheme, is_dark in (("light", False), ("dark", True)):
            page.emulate_media(color_scheme=scheme)
            page.goto(admins.orders)
            expect(page.locator("html")).to_have_class("dark" if is_dark else "")
            assert GREEN in painted(page, "Orders per minute")

    def test_look_further_back_where_they_are_asked_to(
        self, admins: Admins, page: Page, shop: Shop
    ) -> None:
        shop.order(shop.create_product(qty=5)["id"])
        shop.final_statuses()

        for admin in (admins.products, admins.orders):
            page.goto(admin + "?range=nonsense")
            shown = page.get_by_role("navigation", name="Time range").locator("[aria-current]")
            expect(shown).to_have_text("Last hour")
            page.get_by_role("link", name="Last 30 days").click()
            expect(shown).to_have_text("Last 30 days")
            expect(page.locator("#dashboard")).to_contain_text("per day")


class TestPagesThatLookAgain:
    """Time passes when the tests say so."""

    @pytest.fixture
    def looks(self, page: Page) -> list[str]:
        """How often a page was asked for again."""
        looks: list[str] = []
        page.on(
            "request",
            lambda request: looks.append(request.url) if request.resource_type == "fetch" else None,
        )
        page.clock.install()
        return looks

    @staticmethod
    def orders_after_a_while(page: Page) -> int:
        with page.expect_response(lambda response: response.request.resource_type == "fetch"):
            page.clock.run_for(10_500)
        return number(tile(page, "Orders"))

    @pytest.mark.usefixtures("looks")
    def test_show_what_is_new_and_touch_nothing_else(
        self, admins: Admins, page: Page, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=50)
        shop.order(lamp["id"])
        shop.final_statuses()
        page.goto(admins.orders)
        before = number(tile(page, "Orders"))
        page.evaluate("chart = Chart.getChart(document.querySelector('canvas'))")
        drawn = "chart.data.datasets[0].data.reduce((sum, count) => sum + count)"
        confirmed = page.evaluate(drawn)
        page.get_by_role("link", name=re.compile(r"^Orders \d")).focus()
        page.set_viewport_size({"width": 800, "height": 300})
        page.evaluate("scrollTo(0, 120)")

        shop.order(lamp["id"])
        shop.final_statuses()
        eventually(lambda: self.orders_after_a_while(page) == before + 1)

        eventually(lambda: page.evaluate(drawn) == confirmed + 1)
        assert page.evaluate("chart.canvas === document.querySelector('canvas')")
        expect(page.get_by_role("link", name=re.compile(r"^Orders \d"))).to_be_focused()
        assert page.evaluate("scrollY") == 120

    @pytest.mark.parametrize(
        "act",
        [
            "getSelection().selectAllChildren(document.querySelector('h2'))",
            "document.body.innerHTML = '<input>', document.querySelector('input').focus()",
            "document.body.innerHTML += '<dialog open>?</dialog>'",
            "Object.defineProperty(document, 'hidden', {value: true})",
        ],
        ids=["selects", "types", "is asked", "looks elsewhere"],
    )
    def test_wait_for_who(self, admins: Admins, page: Page, looks: list[str], act: str) -> None:
        page.goto(admins.orders)
        page.evaluate(act)
        page.clock.run_for(60_000)

        assert looks == []

    def test_stay_as_they_are_while_the_service_is_away(
        self, browser: Browser, shop: Shop, cookies: list[Any]
    ) -> None:
        # The other pages may not fail to get what they ask for.
        page = browser.new_page()
        page.context.add_cookies(cookies)
        page.clock.install()
        page.goto(Admins(page, shop).orders)
        shown = page.locator("#dashboard").inner_text()
        for happens, answer in (
            ("requestfinished", lambda route: route.fulfill(status=503, body="busy")),
            ("requestfailed", lambda route: route.abort()),
        ):
            page.route("**/admin/", answer)
            with page.expect_event(happens):
                page.clock.run_for(10_500)
            page.unroute("**/admin/")
        assert page.locator("#dashboard").inner_text() == shown

        self.orders_after_a_while(page)
        eventually(lambda: page.locator("#dashboard").inner_text() != shown)
        page.close()

    def test_show_no_log_in_and_stop_for_who_is_logged_out(
        self, admins: Admins, page: Page, looks: list[str]
    ) -> None:
        page.goto(admins.orders)
        page.context.clear_cookies()
        page.clock.run_for(10_500)
        eventually(lambda: looks)
        page.wait_for_timeout(1000)
        page.clock.run_for(60_000)

        assert looks.count(admins.orders) == 1
        expect(page.locator("#dashboard")).to_be_visible()

    def test_follow_an_order_and_a_replay_to_their_ends(
        self, admins: Admins, page: Page, shop: Shop, stack: Harness
    ) -> None:
        lamp = shop.create_product(qty=9)
        body = admins.bury(lamp["id"])
        page.locator("#result_list tr", has_text=str(body["orderId"])).get_by_role(
            "link"
        ).first.click()
        page.locator("[name=body_text]").fill(json.dumps({**body, "quantity": 4}))
        page.get_by_role("button", name="Save and continue editing").click()
        stack.kill("products-worker", signal.SIGSTOP)
        try:
            admins.decide("Replay", "Replay")
            expect(fact(page, "Status")).to_contain_text("replay requested", ignore_case=True)
            second = page.context.new_page()
            order = shop.order(lamp["id"]).json()
            Admins(second, shop).order(order["id"])
            expect(fact(second, "Status")).to_contain_text("Pending")
        finally:
            stack.kill("products-worker", signal.SIGCONT)

        for watched, status in ((page, "replayed"), (second, "confirmed")):
            watched.bring_to_front()
            expect(fact(watched, "Status")).to_contain_text(
                status, ignore_case=True, timeout=60_000
            )
            expect(watched.locator("script[src*=refresh]")).to_have_count(0)


class TestTheSystem:
    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("product-service", "Product-Service: Web service"),
            ("products-worker", "Product-Service: Worker"),
            ("postgres", "Order-Service: PostgreSQL"),
            ("redis", "Both services: Redis"),
            ("rabbitmq", "Both services: RabbitMQ"),
        ],
    )
    def test_names_what_is_frozen_and_waits_for_nothing(
        self, admins: Admins, page: Page, stack: Harness, name: str, part: str
    ) -> None:
        trouble = page.locator("section").first

        def is_told() -> bool:
            # As long as a page is waited for at most, which is less than anything stays frozen.
            page.goto(admins.orders + "system/")
            return part in trouble.inner_text()

        eventually(lambda: not is_told())
        frozen = [stack.pid(name), *stack.children(name)]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            eventually(is_told)
            found = found_by_axe(page)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)

        assert found == []
        eventually(lambda: not is_told())


class TestTheLists:
    def test_say_so_when_nothing_is_found(self, admins: Admins, page: Page) -> None:
        page.goto(admins.products + "products/product/?q=nobody+sells+this")

        admins.said("Nothing matches the search and the filters.")
        page.locator("#changelist-form").get_by_role("link", name="Show all").click()
        expect(page).to_have_url(admins.products + "products/product/?")

    def test_are_filtered_sorted_and_shown_whole_again_by_keyboard(
        self, admins: Admins, page: Page, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=5)
        orders = [shop.order(lamp["id"]).json()["id"] for _ in range(2)]
        shop.final_statuses()
        ids = page.locator("#result_list tbody tr code")
        page.set_viewport_size(NARROW)

        page.goto(f"{admins.orders}orders/order/?q={lamp['id']}&status__exact=CONFIRMED&p=2")
        page.get_by_role("button", name="Filters").press("Enter")
        page.get_by_role("link", name="Last hour").press("Enter")
        chips = page.get_by_role("list", name="Active filters").get_by_role("link")
        expect(chips).to_have_count(4)
        expect(ids).to_have_text(orders[::-1])
        assert found_by_axe(page) == []
        # Whose date is chosen for the same list, without what is not in the form any more.
        page.get_by_role("button", name="Filters").press("Enter")
        page.locator("[name=created_at_from_0]").fill("2020-01-03")
        page.get_by_role("button", name="Apply Filters").press("Enter")
        expect(chips.nth(2)).to_contain_text("Time: from 2020-01-03")
        expect(ids).to_have_text(orders[::-1])

        chips.nth(2).press("Enter")
        chips.nth(1).press("Enter")
        expect(chips).to_have_count(2)
        page.set_viewport_size(WIDE)
        page.get_by_role("link", name="Created, UTC").press("Enter")
        expect(ids).to_have_text(orders)
        expect(page.locator("#result_list time").first).to_have_attribute("title", re.compile("20"))
        chips.last.press("Enter")
        expect(chips).to_have_count(0)
        assert "o=" in page.url


class TestThePages:
    @pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
    def test_fit_the_screen(self, admins: Admins, page: Page, shop: Shop, size) -> None:
        lamp = shop.create_product(qty=5)
        order = shop.order(lamp["id"]).json()
        shop.final_statuses()
        page.set_viewport_size(size)

        for address in (
            admins.products,
            admins.products + "products/product/",
            admins.products + f"products/product/{lamp['id']}/change/",
            admins.products + "products/stockmovement/",
            admins.products + "products/reservation/",
            admins.products + "dead_letters/deadletter/",
            admins.products + "dead_letters/deadletter/reasons/",
            admins.orders,
            admins.orders + "orders/order/",
            admins.orders + f"orders/order/{order['id']}/change/",
            admins.orders + "outbox/outgoingevent/",
        ):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], address

    def test_shut_nobody_out(self, admins: Admins, page: Page, shop: Shop) -> None:
        lamp = shop.create_product(qty=5)
        for quantity in (1, 9):
            shop.order(lamp["id"], quantity)
        shop.final_statuses()
        admins.bury(lamp["id"])

        seen, found = set(), []
        for admin in (admins.products, admins.orders):
            for address in one_page_of_each_kind(page, admin):
                seen.add(urlsplit(address).path.split("/")[-2])
                # What is folded is read, too.
                page.evaluate(
                    "document.querySelectorAll('details').forEach(one => one.open = true)"
                )
                found += found_by_axe(page)
        page.context.clear_cookies()
        page.goto(admins.orders)
        found += found_by_axe(page)

        assert not found, "\n".join(found)
        assert seen >= {
            "add",
            "change",
            "delete",
            "export",
            "history",
            "import",
            "restock",
            "reasons",
        }

    def test_open_their_menus_by_keyboard(self, admins: Admins, page: Page, shop: Shop) -> None:
        shop.create_product(qty=5)
        page.goto(admins.products + "products/product/")
        focused = page.locator("*:focus")
        dialog = page.get_by_role("dialog", name="Filters")
        for opener, menu in (
            (
                page.get_by_role("button", name="More actions").last,
                page.locator("body > nav:visible"),
            ),
            (page.locator("#nav-sidebar-inner [aria-expanded]:visible"), page.locator("nav nav")),
            (page.get_by_role("button", name="Filters", exact=True), dialog),
        ):
            # Tab comes to it, Enter opens it and goes in, Escape closes it and comes back.
            opener.focus()
            page.keyboard.press("Shift+Tab")
            page.keyboard.press("Tab")
            expect(opener).to_be_focused()
            page.keyboard.press("Enter")
            expect(menu.locator(focused)).to_have_count(1)
            expect(opener).to_have_attribute("aria-expanded", "true")
            assert found_by_axe(page) == []
            page.keyboard.press("Escape")
            expect(menu).to_be_hidden()
            expect(opener).to_be_focused()

        page.keyboard.press("Enter")
        expect(dialog.locator(focused)).to_have_count(1)
        # Nothing behind a dialog is reached.
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        expect(dialog.locator(focused)).to_have_count(1)


def tile(page: Page, title: str) -> Locator:
    return page.locator(
        "#dashboard a", has=page.get_by_role("heading", name=title, exact=True)
    ).locator(".text-2xl")


def card(page: Page, title: str) -> Locator:
    return page.locator("section", has=page.get_by_role("heading", name=title))


def number(shown: Locator) -> int:
    return int(shown.inner_text().replace(",", ""))
