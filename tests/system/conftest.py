"""A browser for these tests."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from browser import WIDE, Watch, launched
from playwright.sync_api import Browser, Page
from shop import Shop

from deploy.native import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, for as long as a module looks at pages."""
    binary = chromium.binary()
    if binary is None:
        pytest.skip(
            "there is no browser: install one (on Debian: apt-get install chromium), "
            "or name one in the variable CHROMIUM"
        )
    with launched(binary) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, shop: Shop) -> Iterator[Page]:
    """A page that may load nothing but ours, all of it, and whose scripts may not complain."""
    watch = Watch(ours={urlsplit(address).netloc for address in (shop.products, shop.orders)})
    context = browser.new_context(viewport=WIDE)
    context.set_default_timeout(10_000)
    watch.over(context)
    yield context.new_page()
    context.close()
    watch.assert_nothing_was_wrong()
