"""A whole system for these tests, beside whatever else runs on the machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import WIDE, Watch, launched
from playwright.sync_api import Browser, Page
from shop import Shop

from deploy.native import chromium
from deploy.native.ports import Ports
from deploy.native.stack import Stack
from deploy.settings import ROOT


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Four kinds of process and three servers, started as `make up` starts them."""
    directory = ROOT / ".run" / f"system-test-{os.getpid()}"
    stack = Stack(directory, Ports.free())
    try:
        stack.up()
        yield stack
    finally:
        logs = Path(os.environ.get("TEST_LOGS", ""))
        if os.environ.get("TEST_LOGS"):
            directory.joinpath("logs").rename(logs)
        stack.remove()


@pytest.fixture
def shop(stack: Stack) -> Iterator[Shop]:
    """A client of the system, which is whole again when the test begins and when it ends."""
    stack.wait_ready()
    yield Shop(stack.environment)
    stack.wait_ready()


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
