"""The guided tour: one product, its orders, and every answer that a first-time user should see.

`python -m tools.demo` prints each request as a line that can be pasted, and the answer below it.
A request that gets no answer, or "not now", is sent again: that is what Idempotency-Key is for.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import requests

_STOCK = 10
_QUANTITY = 3

_PATIENCE_SECONDS = 60
_PAUSE_SECONDS = 0.5
_REQUEST_TIMEOUT_SECONDS = 5
_NOT_NOW = {502, 503, 504}

_BOLD, _CYAN, _GREEN, _YELLOW = "1", "36", "32", "33"


class StoryBroken(Exception):
    """The system did not do what the tour says it does."""


class Tour:
    """The story, told against two services."""

    def __init__(self, products_url: str, orders_url: str) -> None:
        self._products_url = products_url
        self._orders_url = orders_url
        self._has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._session = requests.Session()
        # A proxy of the environment knows nothing of services on this machine.
        self._session.trust_env = False

    def tell(self) -> None:
        """Go through all steps.

        :raises StoryBroken: if one of them does not end as it should
        """
        products, orders = self._products_url, self._orders_url
        self._title(f"A product, and {_STOCK} of it in stock:")
        # A repeated attempt may leave a second lamp behind; the tour goes on with this one.
        lamp = {"name": "Desk lamp", "price": 190000, "qty": _STOCK}
        product = self._insist("POST", products, lamp, expected=201)["id"]

        self._title(
            f"An order of {_QUANTITY}. It is accepted at once and cannot be lost any more; "
            "whether there is stock is decided in the background:"
        )
        body, key = {"productId": product, "quantity": _QUANTITY}, {"Idempotency-Key": str(uuid4())}
        order = self._insist("POST", orders, body, headers=key, expected=201)["id"]

        self._title("Sent again with the same Idempotency-Key, it is the same order:")
        if self._insist("POST", orders, body, headers=key, expected=201)["id"] != order:
            raise StoryBroken("That was a second order.")

        self._title("Moments later its stock is reserved, and it is CONFIRMED:")
        found = self._insist(
            "GET",
            f"{orders}/{order}?wait=3",
            expected=200,
            # 404 only when Redis lost its memory in this very moment.
            also_later=requests.codes.not_found,
            until=lambda answer: bool(answer["status"] != "PENDING"),
        )
        if found["status"] != "CONFIRMED":
            raise StoryBroken(f"Order {order} is {found['status']}, not CONFIRMED.")
        self._watch_stock(product, _STOCK - _QUANTITY)

        self._title("What both services did for it, in milliseconds from step to step:")
        self._insist("GET", f"{orders}/{order}/timeline", expected=200)

        too_many = _STOCK - _QUANTITY + 1
        self._title(f"{too_many} are more than is left, so this order is refused:")
        # Refused is only what the product service refuses. While it cannot be asked, an order is
        # accepted, and the stock itself decides: then it is sent again, and gets no stock again.
        body = {"productId": product, "quantity": too_many}
        self._insist(
            "POST", orders, body, expected=400, code="insufficient_stock",
            also_later=requests.codes.created,
        )  # fmt: skip

        self._title("And what does not exist cannot be ordered:")
        body = {"productId": str(uuid4()), "quantity": 1}
        self._insist("POST", orders, body, expected=404, code="product_not_found")

        self._title("The first order is cancelled, and its stock comes back:")
        self._insist("POST", f"{orders}/{order}/cancel", expected=200)
        self._watch_stock(product, _STOCK)

        self._title("All orders of the product, newest first:")
        self._insist(
            "GET",
            f"{orders}?productId={product}",
            expected=200,
            until=lambda answer: order in {each["id"] for each in answer},
        )
        roots = [url.rsplit("/", 1)[0] for url in (products, orders)]
        self._title(
            f"Where to look next: {roots[0]}/admin/ and {roots[1]}/admin/ for what is stored, "
            f"{roots[0]}/ and {roots[1]}/ to click through the API, "
            "and `make ledger` to prove that all of it adds up."
        )

    def _watch_stock(self, product: str, expected: int) -> None:
        self._title(f"The product has {expected} in stock:")
        self._insist(
            "GET",
            f"{self._products_url}/{product}",
            expected=200,
            until=lambda answer: bool(answer["qty"] == expected),
        )

    def _insist(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        expected: int,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
        also_later: int | None = None,
        until: Callable[[Any], bool] = lambda _: True,
    ) -> Any:
        """Show a request, repeat it until it is answered as it should be; show and return that.

        :raises StoryBroken: if that does not happen within a minute, or another answer comes
        """
        headers = headers or {}
        self._show_request(method, url, body, headers)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        has_said_so = False
        while True:
            status, answer = self._answer(method, url, body, headers)
            if status not in {0, also_later} and (status != expected or until(answer)):
                break
            if time.monotonic() >= deadline:
                raise StoryBroken(f"{url} did not answer so within {_PATIENCE_SECONDS} s.")
            if not has_said_so:
                self._say("… not there yet, trying again")
                has_said_so = True
            time.sleep(_PAUSE_SECONDS)
        phrase = HTTPStatus(status).phrase
        self._say(f"HTTP/1.1 {status} {phrase}", _GREEN if status in {200, 201} else _YELLOW)
        print(json.dumps(answer, indent=2, ensure_ascii=False), flush=True)
        if status != expected or (code and answer.get("code") != code):
            raise StoryBroken(f"The answer should have been {expected} {code or ''}".rstrip() + ".")
        return answer

    def _answer(
        self, method: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> tuple[int, Any]:
        """Send a request once; return status and body, 0 without one and for "not now"."""
        try:
            answer = self._session.request(
                method,
                url,
                json=body,
                headers={"Accept": "application/json", **headers},
                timeout=_REQUEST_TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException:
            return 0, None
        if answer.status_code in _NOT_NOW:
            return 0, None
        try:
            return answer.status_code, answer.json()
        except requests.JSONDecodeError:
            return answer.status_code, {"answer": answer.text}

    # What the reader sees: sentences, commands, answers; in colour where that is wanted.

    def _say(self, text: str, colour: str = _BOLD) -> None:
        print(f"\033[{colour}m{text}\033[0m" if self._has_colours else text, flush=True)

    def _title(self, sentence: str) -> None:
        print()
        self._say(sentence)

    def _show_request(
        self, method: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> None:
        parts = [f"curl -i{'' if method == 'GET' else f' -X {method}'} {shlex.quote(url)}"]
        parts += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
        if body is not None:
            parts.append("-H 'Content-Type: application/json'")
            parts.append(f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}")
        self._say("$ " + " \\\n    ".join(parts), _CYAN)


def main() -> int:
    """Tell the story; return 0 when it came true, 1 when it did not."""
    tour = Tour(
        os.environ.get("PRODUCT_API_URL") or "http://localhost:3001/products",
        os.environ.get("ORDER_API_URL") or "http://localhost:3002/orders",
    )
    try:
        tour.tell()
    except StoryBroken as broken:
        print(f"\nThe story did not come true. {broken}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
