"""A browser in front of the whole system, and what no page may do in it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    sync_playwright,
)

from deploy.native import chromium

WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}

# Chromium says this of every answer from 400 up. We expect some from the API; those of what a
# page is made of are seen as answers.
_SAYS_STATUS = "Failed to load resource: the server responded with a status of"
_AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
_PARTS = {"stylesheet", "script", "image", "font", "media", "manifest"}


@contextmanager
def launched(binary: str) -> Iterator[Browser]:
    """Run a browser for as long as it is needed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=chromium.ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Watch:
    """Keeps what a page must not do: ask others, complain, or miss a part of itself."""

    ours: set[str]
    strangers: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        """Watch all pages of a context from now on."""
        context.on("request", self._see_request)
        context.on("response", self._see_response)
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _see_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"data", "blob"} and address.netloc not in self.ours:
            self.strangers.append(request.url)

    def _see_response(self, response: Response) -> None:
        is_part = response.request.resource_type in _PARTS
        if response.status >= 500 or (is_part and response.status >= 400):
            self.missing.append(f"{response.status} {response.url}")

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_SAYS_STATUS):
            self.complaints.append(message.text)

    def assert_nothing_was_wrong(self) -> None:
        """Fail with everything that was seen."""
        assert (self.strangers, self.complaints, self.missing) == ([], [], [])


def painted(page: Page, label: str) -> set[str]:
    """Return the colours that fill a part of a chart, as `#rrggbb`."""
    found: list[str] = (
        page.get_by_role("img", name=label)
        .locator("canvas")
        .evaluate(
            """canvas => {
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const count = new Map();
            for (let at = 0; at < data.length; at += 4) {
                if (data[at + 3] < 255) continue;
                const colour = '#' + [...data.slice(at, at + 3)]
                    .map(part => part.toString(16).padStart(2, '0')).join('');
                count.set(colour, (count.get(colour) || 0) + 1);
            }
            return [...count].filter(([, pixels]) => pixels > 30).map(([colour]) => colour);
        }"""
        )
    )
    return set(found)


def one_page_of_each_kind(page: Page, start: str) -> Iterator[str]:
    """Follow every link from a page on, and be on each page whose address is yielded.

    Addresses that differ in ids, filters and pages of a list are one kind.
    """
    kinds: set[str] = set()
    addresses = [start]
    for address in addresses:
        kind = re.sub(r"/(\d+|[\da-f-]{32,36})(?=/)", "/*", urlsplit(address).path)
        if kind in kinds or not address.startswith(start):
            continue
        kinds.add(kind)
        page.goto(address)
        yield address
        addresses += page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")


def found_by_axe(page: Page) -> list[str]:
    """Return what axe says against a page, light and dark, by WCAG 2 AA and its own advice."""
    page.add_script_tag(path=_AXE)
    found: list[str] = page.evaluate(
        """async () => {
            const found = [];
            for (const scheme of ['', 'dark']) {
                document.documentElement.className = scheme;
                await Promise.allSettled(document.getAnimations().map(({finished}) => finished));
                const {violations} = await axe.run({resultTypes: ['violations']});
                for (const {help, nodes} of violations)
                    for (const {html, failureSummary} of nodes)
                        found.push([scheme, help, html, failureSummary].join(' | '));
            }
            return found;
        }"""
    )
    return [f"{page.url} {finding}" for finding in found]
