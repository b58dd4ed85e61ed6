"""`make demo`: sells a lamp, and shows every request and every answer.

Each request is printed as the curl line that does the same. The demo is patient: whatever answers
503, or not at all, is asked again for a minute, so it can be run while parts of the system are
being restarted or killed.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests

_PATIENCE_SECONDS = 60
_STOCK = 10
_UNITS = 3
_NOBODY = "00000000-0000-0000-0000-000000000000"


class StoryBroken(Exception):
    """Something did not happen that should have."""


class Demo:
    """The story, step by step."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._products = addresses["PRODUCT_API_URL"]
        self._orders = addresses["ORDER_API_URL"]
        self._steps = 0

    def run(self) -> None:
        """Tell it from the product to the refusal.

        :raises StoryBroken: if the system does something else
        """
        lamp = self._create_lamp()
        product_id = lamp["id"]

        self._say(f"Order {_UNITS} of them. The answer comes once the order cannot be lost.")
        order = self._order_once(product_id)

        self._say("Ask for the order at once: it is there, stored or on its way.")
        self._ask("GET", f"{self._orders}/{order['id']}", expect=200)

        self._say("Its stock is decided a moment later.")
        self._wait_for_confirmation(order["id"])
        self._ask("GET", f"{self._orders}/{order['id']}", expect=200)

        self._say("The units have left the stock.")
        left = self._ask("GET", f"{self._products}/{product_id}", expect=200)["qty"]
        if left != _STOCK - _UNITS:
            raise StoryBroken(f"{_STOCK - _UNITS} units should be left, and {left} are.")

        self._say("All orders of the product, newest first.")
        self._ask("GET", f"{self._orders}?productId={product_id}", expect=200)

        self._say("More than is left is refused, and leaves no trace.")
        too_many = {"productId": product_id, "quantity": left + 1}
        self._ask("POST", self._orders, too_many, expect=400)

        self._say("So is what does not exist.")
        self._ask("POST", self._orders, {"productId": _NOBODY, "quantity": 1}, expect=404)

    def _create_lamp(self) -> dict[str, Any]:
        self._say("Create a product. Money is in the currency's smallest unit.")
        body = {"name": "Lamp", "price": 190000, "qty": _STOCK}
        return self._ask("POST", self._products, body, expect=201)

    def _order_once(self, product_id: str) -> dict[str, Any]:
        """Order, and order again only if the first attempt certainly came to nothing."""
        body = {"productId": product_id, "quantity": _UNITS}
        self._print_request("POST", self._orders, body)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = self._send("POST", self._orders, body)
            except requests.ConnectionError as error:
                if self._was_refused(error):
                    self._not_yet("nobody listens")
                    continue
            except requests.RequestException:
                pass  # the answer got lost: what became of the order is looked up below
            else:
                if answer.status_code == requests.codes.created:
                    self._print_answer(answer)
                    return dict(answer.json())
                if _code(answer) == "not_accepted":
                    self._not_yet("not accepted")
                    continue
                if answer.status_code < 500:  # noqa: PLR2004 - RFC 9110: our mistake, and final
                    self._print_answer(answer)
                    raise StoryBroken(f"the order was answered {answer.status_code}.")
            self._not_yet("the outcome is unknown, looking the order up")
            found = self._look_up(product_id)
            if found:
                return found
        raise StoryBroken(f"no order was accepted within {_PATIENCE_SECONDS} s.")

    def _look_up(self, product_id: str) -> dict[str, Any] | None:
        # Longer than an accepted order takes to be stored, also by a worker that starts just now.
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                listed = self._send("GET", f"{self._orders}?productId={product_id}").json()
            except requests.RequestException:
                listed = []
            if isinstance(listed, list) and listed:
                return dict(listed[0])
            time.sleep(0.5)
        return None

    def _wait_for_confirmation(self, order_id: str) -> None:
        def status() -> str:
            try:
                return str(self._send("GET", f"{self._orders}/{order_id}").json().get("status"))
            except requests.RequestException:
                return "unknown"

        final = self._until(lambda: (found := status()) in {"CONFIRMED", "REJECTED"} and found)
        if final != "CONFIRMED":
            raise StoryBroken(f"the order should be CONFIRMED, and is {final or 'not final'}.")

    def _ask(
        self, method: str, url: str, body: dict[str, Any] | None = None, *, expect: int
    ) -> dict[str, Any]:
        """Print a request, send it until it is answered as the story goes, print the answer."""
        self._print_request(method, url, body)
        last = "no answer"
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = self._send(method, url, body)
            except requests.RequestException as error:
                last = type(error).__name__
                self._not_yet(last)
                continue
            if answer.status_code == expect:
                self._print_answer(answer)
                found = answer.json()
                return found if isinstance(found, dict) else {}
            last = str(answer.status_code)
            if answer.status_code < 500:  # noqa: PLR2004 - RFC 9110: final
                self._print_answer(answer)
                break
            self._not_yet(last)
        raise StoryBroken(f"{method} {url} should be answered {expect}, not {last}.")

    def _until(self, probe: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (answer := probe()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return answer

    def _not_yet(self, reason: str) -> None:
        print(f"  … {reason}, trying again", flush=True)
        time.sleep(0.5)

    @staticmethod
    def _send(method: str, url: str, body: dict[str, Any] | None = None) -> requests.Response:
        return requests.request(method, url, json=body, timeout=5)

    @staticmethod
    def _was_refused(error: requests.ConnectionError) -> bool:
        return "Connection refused" in str(error)

    def _say(self, sentence: str) -> None:
        self._steps += 1
        print(f"\n{_bold(f'{self._steps}. {sentence}')}\n", flush=True)

    @staticmethod
    def _print_request(method: str, url: str, body: dict[str, Any] | None) -> None:
        parts = ["curl -i"]
        if method != "GET":
            parts.append(f"-X {method}")
        line = " ".join([*parts, shlex.quote(url)])
        if body is not None:
            line += " \\\n      -H 'Content-Type: application/json' \\\n      -d " + shlex.quote(
                json.dumps(body)
            )
        print(f"  $ {line}\n", flush=True)

    @staticmethod
    def _print_answer(answer: requests.Response) -> None:
        print(f"  {answer.status_code} {answer.reason}")
        for line in json.dumps(answer.json(), indent=2).splitlines():
            print(f"  {line}")


def _code(answer: requests.Response) -> str:
    try:
        return str(answer.json().get("code"))
    except (ValueError, AttributeError):
        return ""


def _bold(text: str) -> str:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
    return text if plain else f"\033[1m{text}\033[0m"


def main() -> int:
    """Run the demo; return 1 if the story does not come true."""
    try:
        Demo(os.environ).run()
    except KeyError as missing:
        print(f"{missing} is not set: use `make demo`.", file=sys.stderr)
        return 2
    except StoryBroken as broken:
        print(f"\nThe story ends badly: {broken}", file=sys.stderr)
        return 1
    products, orders = (
        os.environ[name].rsplit("/", 1)[0] for name in ("PRODUCT_API_URL", "ORDER_API_URL")
    )
    print(
        f"""
That is the whole flow. Have a look around:

  {products}/admin/   products, their stock and every movement of it
  {orders}/admin/   orders and what became of them
  make ledger                     whether the books of both balance
"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
