"""`make screenshots`: the pictures in `docs/images/`, taken anew from a system of their own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from deploy.console import TerminalProgress
from deploy.failure import DeployFailure
from deploy.native import chromium
from deploy.native.install import ensure_installed
from deploy.native.stack import Stack
from deploy.settings import ROOT
from tools.busy_shop import BusyShop

DIRECTORY = ROOT / "docs" / "images"

_WIDTH = 1440
_LOWEST = 900

Scheme = Literal["light", "dark"]


@dataclass(frozen=True)
class _Picture:
    name: str
    address: str
    #: What a person does on the page before the picture is taken.
    act: Callable[[Page], None] = lambda _page: None
    has_dark_version: bool = False


def _find(page: Page) -> None:
    """Open the only message of the list."""
    page.locator("#result_list tbody th a").first.click()
    page.get_by_role("heading", name="History", exact=True).wait_for()


def _pictures(shop: BusyShop) -> list[_Picture]:
    products, orders = (url.rsplit("/", 1)[0] for url in (shop.products_url, shop.orders_url))
    order = shop.orders[-1]
    return [
        _Picture("orders-dashboard", f"{orders}/admin/", has_dark_version=True),
        _Picture("products-dashboard", f"{products}/admin/", has_dark_version=True),
        _Picture("order-timeline", f"{orders}/admin/orders/order/{order['id']}/change/"),
        _Picture("dead-letters", f"{products}/admin/dead_letters/deadletter/", _find),
        _Picture("browsable-api", f"{shop.orders_url}?productId={order['productId']}&limit=3"),
    ]


class _Camera:
    """A browser that is logged in to both admins."""

    def __init__(self, browser: Browser, shop: BusyShop, scheme: Scheme) -> None:
        self._page, self._scheme = browser.new_page(color_scheme=scheme), scheme
        self._resize(_LOWEST)
        for url in (shop.products_url, shop.orders_url):
            self._page.goto(f"{url.rsplit('/', 1)[0]}/admin/")
            self._page.locator("[name=username]").fill("admin")
            self._page.locator("[name=password]").fill("admin")
            self._page.get_by_role("button", name="Log in").click()
            self._page.locator("#dashboard").wait_for()

    def take(self, picture: _Picture) -> None:
        """Write one picture, as high as its page is."""
        self._resize(_LOWEST)
        self._page.goto(picture.address)
        picture.act(self._page)
        # Not `full_page`: what sticks to the edges of the window would be in its middle.
        self._resize(max(int(self._page.evaluate(_HEIGHT)), _LOWEST))
        self._page.wait_for_load_state("networkidle")
        suffix = "-dark" if self._scheme == "dark" else ""
        self._page.screenshot(path=DIRECTORY / f"{picture.name}{suffix}.png", caret="hide")

    def _resize(self, height: int) -> None:
        self._page.set_viewport_size({"width": _WIDTH, "height": height})


_HEIGHT = "document.fonts.ready.then(() => document.documentElement.scrollHeight)"


def main() -> int:
    """Take all pictures; return 0 if that went well."""
    progress = TerminalProgress()
    try:
        ensure_installed(["chromium"], progress)
        DIRECTORY.mkdir(exist_ok=True)
        temporary = Stack.temporary("screenshots", progress)
        with temporary as stack, sync_playwright() as playwright:
            shop = BusyShop(stack.environment)
            with progress.step("An hour of business"):
                shop.fill()
            browser = playwright.chromium.launch(
                executable_path=chromium.binary(), args=chromium.ARGUMENTS
            )
            for scheme in ("light", "dark"):
                camera = _Camera(browser, shop, scheme)
                for picture in _pictures(shop):
                    if scheme == "light" or picture.has_dark_version:
                        with progress.step(f"{picture.name}, {scheme}"):
                            camera.take(picture)
            browser.close()
    except DeployFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
