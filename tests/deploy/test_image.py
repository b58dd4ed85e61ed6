"""The files of the image, as `deploy/Dockerfile` collects them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.settings import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()

#: Prints how the files of the documentation's page are served, as a browser asks for them.
LOOK = """
import django, re
django.setup()
from django.test import Client
client = Client()
for url in re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/docs").text):
    answer = client.get(url, headers={"accept-encoding": "gzip"})
    print(url, answer.status_code, answer["Cache-Control"], answer.get("Content-Encoding"))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """The code as the image has it, with what the image does to it."""
    image = tmp_path_factory.mktemp("image")
    for package in ("servicekit", "products_project", "orders_project"):
        shutil.copytree(ROOT / package, image / package)
    # As in a clone that was made under a umask of 077.
    subprocess.run(["chmod", "-R", "go=", image], check=True)
    [collect] = re.findall(r"^RUN (mkdir static .*?)\n\n", DOCKERFILE, re.DOTALL | re.MULTILINE)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(["sh", "-ec", collect], cwd=image, env={"PATH": path}, check=True)
    return image


def test_may_be_read_by_the_user_of_the_image(image):
    hidden = [
        each
        for each in image.rglob("*")
        if not each.stat().st_mode & (0o001 if each.is_dir() else 0o004)
    ]

    assert (image / "static").is_dir()
    assert hidden == []


@pytest.mark.parametrize("service", ["products", "orders"])
def test_are_compressed_and_never_asked_for_again(image, service):
    variables = {
        "SECRET_KEY": "none", "CACHE_URL": "redis://", "PRODUCT_API_URL": "http://127.0.0.1:1",
        f"{service.upper()}_DATABASE_URL": "postgresql://", "PYTHONPATH": str(image),
        "ALLOWED_HOSTS": "testserver",
        "DJANGO_SETTINGS_MODULE": f"{service}_project.config.settings",
    }  # fmt: skip
    said = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=image, env=variables, check=True, stdout=subprocess.PIPE
    ).stdout.decode()

    files = [line.split(maxsplit=1) for line in said.splitlines()]
    assert any("swagger-ui-bundle" in url for url, _ in files)
    scripts = {how for url, how in files if url.endswith((".js", ".css"))}
    assert scripts == {"200 max-age=315360000, public, immutable gzip"}
    assert all(re.search(r"\.[0-9a-f]{12}\.\w+$", url) for url, _ in files)
