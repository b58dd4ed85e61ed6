"""The pages of both APIs in a real browser: DRF's forms, Swagger UI, and nothing foreign."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect


def send(page: Page, method: str, body: dict[str, Any]) -> None:
    """Send JSON with the form of DRF's page."""
    page.locator("textarea[name=_content]").fill(json.dumps(body))
    page.get_by_role("button", name=method, exact=True).last.click()


def answer(page: Page):
    return page.locator(".response-info")


class TestTheForms:
    def test_create_a_product_change_it_move_its_stock_and_archive_it(self, page, shop):
        page.goto(shop.products)
        send(page, "POST", {"name": "Desk lamp", "price": 190000, "qty": 5})
        expect(answer(page)).to_contain_text("HTTP 201 Created")
        answer(page).get_by_role("link").first.click()
        address = page.url

        send(page, "PATCH", {"price": 7})
        expect(answer(page)).to_contain_text('"price": 7')

        page.get_by_role("button", name="Extra Actions").click()
        page.get_by_role("link", name="Stock movements").click()
        send(page, "POST", {"delta": -2, "reason": "correction"})
        expect(answer(page)).to_contain_text('"qtyAfter": 3')

        page.goto(address)
        page.get_by_role("button", name="DELETE", exact=True).click()
        page.locator("#deleteModal button", has_text="Delete").click()
        expect(answer(page)).to_contain_text("HTTP 204 No Content")

    def test_order_a_product_and_cancel_the_order(self, page, shop):
        product = shop.create_product(qty=5)
        page.goto(shop.orders)
        send(page, "POST", {"productId": product["id"], "quantity": 2})
        expect(answer(page)).to_contain_text("HTTP 201 Created")
        answer(page).get_by_role("link").first.click()
        page.goto(f"{page.url}?wait=10")
        expect(answer(page)).to_contain_text("CONFIRMED")

        page.get_by_role("button", name="Extra Actions").click()
        page.get_by_role("link", name="Cancel").click()
        send(page, "POST", {})
        expect(answer(page)).to_contain_text("CANCELLED")

    def test_name_what_is_wrong(self, page, shop):
        page.goto(shop.products)
        send(page, "POST", {"name": "   ", "price": 1, "qty": 1})

        expect(answer(page)).to_contain_text("This field may not be blank.")


class TestTheDocs:
    @pytest.mark.parametrize("service", ["products", "orders"])
    def test_are_swagger_ui_with_every_operation(self, page, shop, service):
        page.goto(getattr(shop, service).removesuffix(f"/{service}") + "/docs")

        expect(page.locator(".opblock-tag-section").first).to_contain_text(service)
        expect(page.locator(".opblock").first).to_be_visible()
        expect(page.locator(".errors-wrapper")).to_have_count(0)

    def test_send_the_api_key_that_they_are_given(self, page, shop):
        page.goto(shop.orders.removesuffix("/orders") + "/docs")
        page.locator(".btn.authorize").click()
        page.get_by_label("auth-bearer-value").fill("no key at all")
        page.locator(".auth-btn-wrapper .authorize").click()
        page.locator(".btn-done").click()
        listing = page.locator("#operations-orders-listOrders")
        listing.locator(".opblock-summary-control").click()
        listing.locator(".execute").click()

        expect(listing.locator(".live-responses-table")).to_contain_text("api_key_invalid")


class TestThePages:
    @pytest.mark.parametrize("width", [1440, 390])
    def test_fit_the_screen(self, page, shop, width):
        product = shop.create_product(qty=5)
        order = shop.order(product["id"]).json()
        page.set_viewport_size({"width": width, "height": 900})

        for address in (
            shop.products.removesuffix("/products"),
            shop.products,
            f"{shop.products}/{product['id']}",
            shop.orders,
            f"{shop.orders}/{order['id']}",
            f"{shop.orders}/nowhere",
        ):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address
