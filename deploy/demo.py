"""The guided tour: one product, its orders, and every answer that a first-time user should see.

`python -m deploy.demo` prints each request as a line that can be pasted, and the answer below it.
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
from urllib3.exceptions import NewConnectionError

PRODUCTS_URL = "http://localhost:3001/products"
ORDERS_URL = "http://localhost:3002/orders"

_STOCK = 10
_QUANTITY = 3

_PATIENCE_SECONDS = 60
_PAUSE_SECONDS = 0.5
_REQUEST_TIMEOUT_SECONDS = 5
# How long an order of unknown outcome is looked for before it is placed again.
_SEARCH_SECONDS = 10


class StoryBroken(Exception):
    """The system did not do what the tour says it does."""


class _NotNow(Exception):
    """There is no answer, or one that says to come back; `problem` is what it said."""

    def __init__(self, *, is_refusal: bool, problem: Mapping[str, Any]) -> None:
        super().__init__("no answer")
        #: Whether it is certain that the request did nothing.
        self.is_refusal = is_refusal
        self.problem = problem


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

    def show_request(self, method: str, url: str, body: Mapping[str, Any] | None) -> None:
        parts = ["curl -i"]
        if method != "GET":
            parts[0] += f" -X {method}"
        parts[0] += f" {shlex.quote(url)}"
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


class _Step:
    """One step of the tour: it has a minute, and says once that it has to try again."""

    def __init__(self, terminal: _Terminal) -> None:
        self._terminal = terminal
        self._deadline = time.monotonic() + _PATIENCE_SECONDS
        self._has_said_so = False

    def pause(self, otherwise: str, *, notice: str = "… not there yet, trying again") -> None:
        """Wait a moment before the next attempt.

        :raises StoryBroken: with the sentence `otherwise`, if the time is up
        """
        if time.monotonic() >= self._deadline:
            raise StoryBroken(otherwise)
        if not self._has_said_so:
            self._terminal.say(notice)
            self._has_said_so = True
        time.sleep(_PAUSE_SECONDS)


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
        product = self._create_product()
        order = self._place_order(product["id"])
        self._read_back(order["id"])
        self._wait_until_confirmed(order["id"])
        left = self._watch_stock(product["id"])
        self._list_orders(product["id"], order["id"])
        self._order_too_many(product["id"], left + 1)
        self._order_the_unknown()
        self._look_further()

    def _create_product(self) -> dict[str, Any]:
        self._terminal.title(f"A product, and {_STOCK} of it in stock:")
        body = {"name": "Desk lamp", "price": 190000, "qty": _STOCK}
        # A repeated attempt may leave a second lamp behind; the tour goes on with this one.
        answer = self._insist("POST", self._products_url, body, expected=201)
        return dict(_json(answer))

    def _place_order(self, product_id: str) -> dict[str, Any]:
        self._terminal.title(
            f"An order of {_QUANTITY}. It is accepted at once and cannot be lost any more; "
            "whether there is stock is decided in the background:"
        )
        body = {"productId": product_id, "quantity": _QUANTITY}
        self._terminal.show_request("POST", self._orders_url, body)
        step = _Step(self._terminal)
        while True:
            try:
                answer = self._send("POST", self._orders_url, body)
            except _NotNow as error:
                if not error.is_refusal:
                    found = self._search(step, product_id, error.problem.get("orderId"))
                    if found is not None:
                        self._terminal.say("It was accepted, though its answer got lost:")
                        print(json.dumps(found, indent=2), flush=True)
                        return found
                step.pause(f"The order was not accepted within {_PATIENCE_SECONDS} s.")
                continue
            self._terminal.show_answer(answer)
            _expect(answer, 201)
            return dict(_json(answer))

    def _search(self, step: _Step, product_id: str, order_id: str | None) -> dict[str, Any] | None:
        """Look for an order of unknown outcome, by its id if we know it; None if it is not there.

        Ordering again without looking could order twice.
        """
        until = time.monotonic() + _SEARCH_SECONDS
        while time.monotonic() < until:
            step.pause(f"The order was not accepted within {_PATIENCE_SECONDS} s.")
            try:
                if order_id is not None:
                    answer = self._send("GET", f"{self._orders_url}/{order_id}")
                    if answer.status_code == requests.codes.ok:
                        return dict(_json(answer))
                else:
                    # The list is cached for seconds, but an order that is stored drops it. The
                    # product is new and only ours: whatever is listed is the order.
                    answer = self._send("GET", self._list_url(product_id))
                    if answer.status_code == requests.codes.ok and (listed := _json(answer)):
                        return dict(listed[0])
            except _NotNow:
                continue
        return None

    def _read_back(self, order_id: str) -> None:
        self._terminal.title("The order can be read at once, even before a database has it:")
        url = f"{self._orders_url}/{order_id}"
        # 404 only when Redis lost its memory in this very moment; the worker is about to store it.
        self._insist("GET", url, expected=200, also_later=requests.codes.not_found)

    def _wait_until_confirmed(self, order_id: str) -> None:
        self._terminal.title("Moments later its stock is reserved, and it is CONFIRMED:")
        order = self._wait_until_final(order_id)
        if order["status"] != "CONFIRMED":
            raise StoryBroken(f"Order {order_id} is {order['status']}, and not CONFIRMED.")

    def _wait_until_final(self, order_id: str) -> dict[str, Any]:
        def is_final(answer: requests.Response) -> bool:
            return bool(_json(answer).get("status") != "PENDING")

        answer = self._insist(
            "GET",
            f"{self._orders_url}/{order_id}",
            expected=200,
            also_later=requests.codes.not_found,
            until=is_final,
            otherwise=f"Order {order_id} was not final within {_PATIENCE_SECONDS} s.",
        )
        return dict(_json(answer))

    def _watch_stock(self, product_id: str) -> int:
        self._terminal.title("The product has that much less in stock:")
        expected = _STOCK

        def is_explained(answer: requests.Response) -> bool:
            nonlocal expected
            try:
                listed = self._send("GET", self._list_url(product_id))
            except _NotNow:
                return False
            if listed.status_code != requests.codes.ok:
                return False
            # Not simply what we ordered: an attempt that seemed lost may have come through late.
            expected = _STOCK - sum(
                order["quantity"] for order in _json(listed) if order["status"] == "CONFIRMED"
            )
            return bool(_json(answer)["qty"] == expected < _STOCK)

        answer = self._insist(
            "GET",
            f"{self._products_url}/{product_id}",
            expected=200,
            until=is_explained,
            otherwise=(
                f"The stock of product {product_id} was not lower by the confirmed units "
                f"within {_PATIENCE_SECONDS} s."
            ),
        )
        if expected != _STOCK - _QUANTITY:
            self._terminal.say("An attempt that seemed lost came through late: it was two orders.")
        return int(_json(answer)["qty"])

    def _list_orders(self, product_id: str, order_id: str) -> None:
        self._terminal.title("All orders of the product, newest first:")
        self._insist(
            "GET",
            self._list_url(product_id),
            expected=200,
            until=lambda answer: order_id in {order["id"] for order in _json(answer)},
            otherwise=f"Order {order_id} is not in the list of its product.",
        )

    def _order_too_many(self, product_id: str, quantity: int) -> None:
        self._terminal.title(f"{quantity} are more than is left, so this order is refused:")
        body = {"productId": product_id, "quantity": quantity}
        self._terminal.show_request("POST", self._orders_url, body)
        step = _Step(self._terminal)
        otherwise = f"An order of more than is left was not refused within {_PATIENCE_SECONDS} s."
        while True:
            try:
                answer = self._send("POST", self._orders_url, body)
            except _NotNow:
                # Asking again is harmless: whatever comes of it, it gets no stock.
                step.pause(otherwise)
                continue
            self._terminal.show_answer(answer)
            if answer.status_code != requests.codes.created:
                _expect(answer, 400, "insufficient_stock")
                return
            # Refused is only what the product service refuses. While it cannot be asked, an order
            # is accepted, and the stock itself decides.
            self._terminal.say("It was accepted on an older number, and the stock decides:")
            order = self._wait_until_final(_json(answer)["id"])
            if order["status"] != "REJECTED":
                raise StoryBroken(f"Order {order['id']} took more than was left.")
            step.pause(otherwise, notice="Once more:")

    def _order_the_unknown(self) -> None:
        self._terminal.title("And what does not exist cannot be ordered:")
        body = {"productId": str(uuid4()), "quantity": 1}
        self._insist("POST", self._orders_url, body, expected=404, code="product_not_found")

    def _look_further(self) -> None:
        products, orders = _root_of(self._products_url), _root_of(self._orders_url)
        self._terminal.title(
            f"Where to look next: {products}/admin/ and {orders}/admin/ for what is stored, "
            f"{products}/ and {orders}/ to click through the API, "
            "and `make ledger` to prove that all of it adds up."
        )

    def _list_url(self, product_id: str) -> str:
        return f"{self._orders_url}?productId={product_id}"

    def _insist(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        expected: int,
        code: str | None = None,
        also_later: int | None = None,
        until: Callable[[requests.Response], bool] = lambda _: True,
        otherwise: str = "",
    ) -> requests.Response:
        """Show a request, repeat it until it is answered as it should be, and show the answer.

        :raises StoryBroken: if that does not happen within a minute, or another answer comes
        """
        self._terminal.show_request(method, url, body)
        step = _Step(self._terminal)
        silence = f"{_root_of(url)} did not answer as it should within {_PATIENCE_SECONDS} s."
        while True:
            try:
                answer = self._send(method, url, body)
            except _NotNow:
                step.pause(silence)
                continue
            if answer.status_code == also_later:
                step.pause(silence)
                continue
            if answer.status_code == expected and not until(answer):
                step.pause(otherwise or silence)
                continue
            self._terminal.show_answer(answer)
            _expect(answer, expected, code)
            return answer

    def _send(
        self, method: str, url: str, body: Mapping[str, Any] | None = None
    ) -> requests.Response:
        """Send a request once.

        :raises _NotNow: if it is not answered, or with "not now"
        """
        try:
            answer = self._session.request(
                method,
                url,
                json=body,
                headers={"Accept": "application/json"},
                timeout=_REQUEST_TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _NotNow(is_refusal=_was_never_sent(error), problem={}) from error
        except requests.RequestException as error:
            # For example half an answer.
            raise _NotNow(is_refusal=False, problem={}) from error
        if answer.status_code in {502, 503, 504}:
            problem = _json(answer)
            problem = problem if isinstance(problem, dict) else {}
            # Only "not accepted" promises that nothing was left behind.
            is_refusal = problem.get("code") == "not_accepted"
            raise _NotNow(is_refusal=is_refusal, problem=problem)
        return answer


def _was_never_sent(error: requests.RequestException) -> bool:
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", cause), NewConnectionError)


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
