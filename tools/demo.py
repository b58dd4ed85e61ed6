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
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import requests

PRODUCTS_URL = "http://localhost:3001/products"
ORDERS_URL = "http://localhost:3002/orders"

_STOCK = 10
_QUANTITY = 3

_PATIENCE_SECONDS = 60
_PAUSE_SECONDS = 0.5
_REQUEST_TIMEOUT_SECONDS = 5
_NOT_NOW = {502, 503, 504}


class StoryBroken(Exception):
    """The system did not do what the tour says it does."""


class _Terminal:
    """What the reader sees: sentences, commands, answers; in colour where that is wanted."""

    def __init__(self) -> None:
        self._has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._has_colours else text

    def say(self, sentence: str) -> None:
        print(self._paint("1", sentence), flush=True)

    def title(self, sentence: str) -> None:
        print()
        self.say(sentence)

    def show_request(
        self, method: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> None:
        parts = ["curl -i"]
        if method != "GET":
            parts[0] += f" -X {method}"
        parts[0] += f" {shlex.quote(url)}"
        parts += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
        if body is not None:
            parts.append(f"-H {shlex.quote('Content-Type: application/json')}")
            parts.append(f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}")
        print(self._paint("36", "$ " + " \\\n    ".join(parts)), flush=True)

    def show_answer(self, answer: requests.Response) -> None:
        is_good = answer.status_code < requests.codes.bad_request
        print(
            self._paint("32" if is_good else "33", f"HTTP/1.1 {answer.status_code} {answer.reason}")
        )
        print(json.dumps(_json(answer), indent=2, ensure_ascii=False), flush=True)


class Tour:
    """The story, told against two services."""

    def __init__(self, products_url: str, orders_url: str) -> None:
        self._products_url = products_url.rstrip("/")
        self._orders_url = orders_url.rstrip("/")
        self._terminal = _Terminal()
        self._session = requests.Session()
        # A proxy of the environment knows nothing of services on this machine.
        self._session.trust_env = False

    def tell(self) -> None:
        """Go through all steps.

        :raises StoryBroken: if one of them does not end as it should
        """
        product_id = self._create_product()
        key = str(uuid4())
        order_id = self._place_order(product_id, key)
        self._order_again(product_id, key, order_id)
        self._wait_until_confirmed(order_id)
        self._watch_stock(product_id, _STOCK - _QUANTITY)
        self._look_at_timeline(order_id)
        self._order_too_many(product_id, _STOCK - _QUANTITY + 1)
        self._order_the_unknown()
        self._cancel(order_id)
        self._watch_stock(product_id, _STOCK)
        self._list_orders(product_id, order_id)
        self._look_further()

    def _create_product(self) -> str:
        self._terminal.title(f"A product, and {_STOCK} of it in stock:")
        body = {"name": "Desk lamp", "price": 190000, "qty": _STOCK}
        # A repeated attempt may leave a second lamp behind; the tour goes on with this one.
        answer = self._insist("POST", self._products_url, body, expected=201)
        return str(_json(answer)["id"])

    def _place_order(self, product_id: str, key: str) -> str:
        self._terminal.title(
            f"An order of {_QUANTITY}. It is accepted at once and cannot be lost any more; "
            "whether there is stock is decided in the background:"
        )
        body = {"productId": product_id, "quantity": _QUANTITY}
        headers = {"Idempotency-Key": key}
        answer = self._insist("POST", self._orders_url, body, headers=headers, expected=201)
        return str(_json(answer)["id"])

    def _order_again(self, product_id: str, key: str, order_id: str) -> None:
        self._terminal.title("Sent again with the same Idempotency-Key, it is the same order:")
        body = {"productId": product_id, "quantity": _QUANTITY}
        headers = {"Idempotency-Key": key}
        answer = self._insist("POST", self._orders_url, body, headers=headers, expected=201)
        if _json(answer)["id"] != order_id:
            raise StoryBroken("That was a second order.")

    def _wait_until_confirmed(self, order_id: str) -> None:
        self._terminal.title("Moments later its stock is reserved, and it is CONFIRMED:")
        answer = self._insist(
            "GET",
            f"{self._orders_url}/{order_id}?wait=3",
            expected=200,
            # 404 only when Redis lost its memory in this very moment.
            also_later=requests.codes.not_found,
            until=lambda answer: _json(answer).get("status") != "PENDING",
        )
        if _json(answer)["status"] != "CONFIRMED":
            raise StoryBroken(f"Order {order_id} is {_json(answer)['status']}, not CONFIRMED.")

    def _watch_stock(self, product_id: str, expected: int) -> None:
        self._terminal.title(f"The product has {expected} in stock:")
        self._insist(
            "GET",
            f"{self._products_url}/{product_id}",
            expected=200,
            until=lambda answer: _json(answer).get("qty") == expected,
        )

    def _look_at_timeline(self, order_id: str) -> None:
        self._terminal.title("What both services did for it, in milliseconds from step to step:")
        self._insist("GET", f"{self._orders_url}/{order_id}/timeline", expected=200)

    def _order_too_many(self, product_id: str, quantity: int) -> None:
        self._terminal.title(f"{quantity} are more than is left, so this order is refused:")
        body = {"productId": product_id, "quantity": quantity}
        # Refused is only what the product service refuses. While it cannot be asked, an order is
        # accepted, and the stock itself decides: then it is sent again, and gets no stock again.
        self._insist(
            "POST",
            self._orders_url,
            body,
            expected=400,
            code="insufficient_stock",
            also_later=requests.codes.created,
        )

    def _order_the_unknown(self) -> None:
        self._terminal.title("And what does not exist cannot be ordered:")
        body = {"productId": str(uuid4()), "quantity": 1}
        self._insist("POST", self._orders_url, body, expected=404, code="product_not_found")

    def _cancel(self, order_id: str) -> None:
        self._terminal.title("The first order is cancelled, and its stock comes back:")
        self._insist("POST", f"{self._orders_url}/{order_id}/cancel", expected=200)

    def _list_orders(self, product_id: str, order_id: str) -> None:
        self._terminal.title("All orders of the product, newest first:")
        self._insist(
            "GET",
            f"{self._orders_url}?productId={product_id}",
            expected=200,
            until=lambda answer: order_id in {order["id"] for order in _json(answer)},
        )

    def _look_further(self) -> None:
        products, orders = _root_of(self._products_url), _root_of(self._orders_url)
        self._terminal.title(
            f"Where to look next: {products}/admin/ and {orders}/admin/ for what is stored, "
            f"{products}/ and {orders}/ to click through the API, "
            "and `make ledger` to prove that all of it adds up."
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
        until: Callable[[requests.Response], bool] = lambda _: True,
    ) -> requests.Response:
        """Show a request, repeat it until it is answered as it should be, and show the answer.

        :raises StoryBroken: if that does not happen within a minute, or another answer comes
        """
        self._terminal.show_request(method, url, body, headers or {})
        deadline = time.monotonic() + _PATIENCE_SECONDS
        has_said_so = False
        while True:
            answer = self._answer(method, url, body, headers)
            if (
                answer is not None
                and answer.status_code != also_later
                and (answer.status_code != expected or until(answer))
            ):
                self._terminal.show_answer(answer)
                _expect(answer, expected, code)
                return answer
            if time.monotonic() >= deadline:
                raise StoryBroken(
                    f"{_root_of(url)} did not answer as it should within {_PATIENCE_SECONDS} s."
                )
            if not has_said_so:
                self._terminal.say("… not there yet, trying again")
                has_said_so = True
            time.sleep(_PAUSE_SECONDS)

    def _answer(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response | None:
        """Send a request once, and return its answer; None without one, and for "not now"."""
        try:
            answer = self._session.request(
                method,
                url,
                json=body,
                headers={"Accept": "application/json", **(headers or {})},
                timeout=_REQUEST_TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException:
            return None
        return None if answer.status_code in _NOT_NOW else answer


def _expect(answer: requests.Response, status: int, code: str | None = None) -> None:
    body = _json(answer)
    if answer.status_code != status:
        raise StoryBroken(f"The answer should have been {status}, not {answer.status_code}.")
    if code is not None and (not isinstance(body, dict) or body.get("code") != code):
        raise StoryBroken(f"The answer should have had the code {code}.")


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except requests.JSONDecodeError:
        return answer.text


def _root_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def main() -> int:
    """Tell the story; return 0 when it came true, 1 when it did not."""
    tour = Tour(
        os.environ.get("PRODUCT_API_URL") or PRODUCTS_URL,
        os.environ.get("ORDER_API_URL") or ORDERS_URL,
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
