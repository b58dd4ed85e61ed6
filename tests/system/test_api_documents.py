"""The documents of both APIs are true: what schemathesis makes of them, real services answer so."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from deploy.openapi import DOCUMENTS

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

        ran = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                f"--config-file={HERE / 'schemathesis.toml'}",
                "run",
                f"--url={address}",
                "--no-color",
                str(DOCUMENTS[project]),
            ],
            cwd=HERE,
            env={
                **os.environ,
                "EXISTING_PRODUCT_ID": product["id"],
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

        assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]

    def test_serves_the_document_that_is_committed(self, project, address):
        served = requests.get(f"{address}/schema", timeout=5).json()

        assert served == yaml.safe_load(DOCUMENTS[project].read_text())

    def test_serves_it_as_yaml_too(self, project, address):
        answers = [
            requests.get(f"{address}/schema", headers={"Accept": "application/yaml"}, timeout=5),
            requests.get(f"{address}/schema?format=yaml", timeout=5),
        ]

        for answer in answers:
            assert answer.headers["Content-Type"].startswith("application/yaml")
            assert answer.text == DOCUMENTS[project].read_text()


def test_the_books_are_right_after_all_of_it(shop):
    assert shop.ledger().differences == []
