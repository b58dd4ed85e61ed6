"""The documents of both APIs are true: what schemathesis makes of them, real services answer so."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from redis import Redis

from tools.openapi import DOCUMENTS
from tools.postman import COLLECTION

HERE = Path(__file__).parent
SERVICES = pytest.mark.parametrize("project", DOCUMENTS)


@pytest.fixture
def address(shop, project) -> str:
    """Where the service of a project answers."""
    resource = {"products_project": shop.products, "orders_project": shop.orders}[project]
    return "{0.scheme}://{0.netloc}".format(urlsplit(resource))


@SERVICES
class TestAService:
    def test_answers_every_request_as_its_document_says(self, shop, project, address):
        product = shop.create_product(qty=1_000_000)
        # Or an id that is made up could be of an order with a key that Redis has just forgotten.
        with Redis.from_url(shop.environment["CACHE_URL"]) as redis:
            redis.set("orders.since", f"{redis.info('server')['run_id']} 0")

        program = Path(sys.executable).with_name("schemathesis")
        options = ["run", f"--url={address}", "--no-color", DOCUMENTS[project]]
        variables = {"EXISTING_PRODUCT_ID": product["id"], "PYTHONDONTWRITEBYTECODE": "1"}
        ran = subprocess.run(
            [program, f"--config-file={HERE / 'schemathesis.toml'}", *options],
            cwd=HERE, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
            timeout=200,
        )  # fmt: skip

        assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]

    def test_serves_the_document_that_is_committed(self, project, address):
        served = requests.get(f"{address}/schema", timeout=30).json()

        assert served == yaml.safe_load(DOCUMENTS[project].read_text())

    def test_serves_it_as_yaml_too(self, project, address):
        ways = [("", {"Accept": "application/yaml"}), ("?format=yaml", {})]
        for query, headers in ways:
            answer = requests.get(f"{address}/schema{query}", headers=headers, timeout=30)
            assert answer.headers["Content-Type"].startswith("application/yaml")
            assert answer.text == DOCUMENTS[project].read_text()


def requests_of(folder: Any) -> Iterator[Any]:
    for item in folder["item"]:
        if "item" in item:
            yield from requests_of(item)
        else:
            yield item


def test_the_postman_collection_tells_a_story_from_its_first_to_its_last_request(shop):
    collection = json.loads(COLLECTION.read_text())
    variables = {each["key"]: each["value"] for each in collection["variable"]}
    variables["productService"] = shop.products.removesuffix("/products")
    variables["orderService"] = shop.orders.removesuffix("/orders")

    def filled(text: str) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: variables[found[1]], text)

    for item in requests_of(collection):
        request = item["request"]
        url = request["url"]
        address = filled(url if isinstance(url, str) else url["raw"])
        sent = [each for each in request["header"] if "disabled" not in each]
        headers = {each["key"]: each["value"] for each in sent}
        body = filled(request.get("body", {}).get("raw", "")).encode() or None
        answer = requests.request(
            request["method"], address, headers=headers, data=body, timeout=30
        )
        assert answer.ok, (item["name"], answer.text)
        for event in item.get("event", []):
            [name] = re.findall(r'set\("(\w+)"', "".join(event["script"]["exec"]))
            variables[name] = answer.json()["id"]


def test_the_books_are_right_after_all_of_it(shop):
    assert shop.ledger().differences == []
