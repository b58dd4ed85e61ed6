"""The pages of both APIs in a real browser: forms, errors, Swagger UI, and nothing foreign."""

import pytest
from playwright.sync_api import Page, expect


def form(page: Page, title: str):
    """Return an opened form by its title."""
    card = page.locator("details.do", has=page.locator("summary", has_text=title))
    if card.get_attribute("open") is None:
        card.locator("> summary").click()
    return card


def answer(page: Page):
    return page.locator("#answer")


class TestTheForms:
    def test_create_a_product_move_its_stock_and_archive_it(self, page, shop):
        page.goto(shop.products)
        create = form(page, "Create a product")
        create.locator("[name=name]").fill("Desk lamp")
        create.locator("[name=price]").fill("190000")
        create.locator("[name=qty]").fill("5")
        create.get_by_role("button", name="Create a product").click()
        expect(answer(page)).to_contain_text("201 Created")

        answer(page).locator("dd a").click()
        move = form(page, "Move stock")
        move.locator("[name=delta]").fill("-2")
        move.locator("[name=reason]").select_option("correction")
        move.get_by_role("button", name="Move stock").click()
        expect(answer(page)).to_contain_text('"qtyAfter": 3')

        page.on("dialog", lambda dialog: dialog.accept())
        archive = form(page, "Archive a product")
        archive.get_by_role("button", name="Archive a product").click()
        expect(answer(page)).to_contain_text("204 No Content")
        page.reload()
        expect(answer(page)).to_contain_text("product_archived")

    def test_change_a_product_as_json(self, page, shop):
        product = shop.create_product(qty=1)
        page.goto(f"{shop.products}/{product['id']}")
        change = form(page, "Change a product")
        change.get_by_role("tab", name="JSON").click()
        expect(change.locator("textarea")).to_have_value('{\n  "name": "Lamp",\n  "price": 100\n}')
        change.locator("textarea").fill('{"price": 7}')
        change.get_by_role("button", name="Change a product").click()

        expect(answer(page)).to_contain_text('"price": 7')
        assert shop.product(product["id"])["price"] == 7

    def test_send_headers_too(self, page, shop):
        product = shop.create_product(qty=1)
        page.goto(f"{shop.products}/{product['id']}")
        change = form(page, "Change a product")
        change.get_by_text("Headers").click()
        change.locator("[name=If-Match]").fill('"99"')
        change.get_by_role("button", name="Change a product").click()

        expect(answer(page)).to_contain_text("412 Precondition Failed")

    def test_order_a_product_and_cancel_the_order(self, page, shop):
        product = shop.create_product(qty=5)
        page.goto(f"{shop.orders}?productId={product['id']}")
        place = form(page, "Place an order")
        expect(place.locator("[name=productId]")).to_have_value(product["id"])
        place.locator("[name=quantity]").fill("2")
        place.get_by_role("button", name="Place an order").click()
        expect(answer(page)).to_contain_text("201 Created")

        answer(page).locator("dd a").click()
        page.locator("form.query [name=wait]").fill("10")
        page.get_by_role("button", name="Show").click()
        expect(answer(page)).to_contain_text("CONFIRMED")

        form(page, "Cancel an order").get_by_role("button", name="Cancel an order").click()
        expect(answer(page)).to_contain_text("CANCELLED")

        page.get_by_role("link", name="timeline").click()
        expect(answer(page)).to_contain_text('"cancelled"')

    def test_mark_the_field_that_is_wrong(self, page, shop):
        page.goto(shop.products)
        create = form(page, "Create a product")
        create.locator("[name=name]").fill("   ")
        create.locator("[name=price]").fill("1")
        create.locator("[name=qty]").fill("1")
        create.get_by_role("button", name="Create a product").click()

        expect(answer(page)).to_contain_text("This field may not be blank.")
        expect(create.locator("[name=name]")).to_have_attribute("aria-invalid", "true")
        expect(create.locator("[name=price]")).not_to_have_attribute("aria-invalid", "true")


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
