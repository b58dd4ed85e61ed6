"""`make load`: the load profile of k6/create_orders.js, and then the ledger.

A load test that only looks for the status 201 sees no lost order and no oversold unit. So the
books are checked afterwards, and both have to be right.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import requests

from deploy.failure import DeployFailure
from deploy.settings import ROOT

# More than the profile can order, so that every order can be confirmed.
_STOCK = 1_000_000
_K6_MODULE = "go.k6.io/k6@v1.8.1"


def main() -> int:
    """Run k6, then the ledger; return 0 if both are content."""
    try:
        k6 = _find_k6()
        product = os.environ.get("PRODUCT_ID") or _create_product()
    except DeployFailure as failure:
        print(failure, file=sys.stderr)
        return 1
    base_url = os.environ["ORDER_API_URL"].rsplit("/", 1)[0]
    environment = {**os.environ, "PRODUCT_ID": product, "BASE_URL": base_url}
    load = subprocess.run(
        [k6, "run", "k6/create_orders.js"], cwd=ROOT, env=environment, check=False
    )
    print("\nThe ledger:\n", flush=True)
    books = subprocess.run([sys.executable, "-m", "deploy.ledger"], cwd=ROOT, check=False)
    return load.returncode or books.returncode


def _find_k6() -> str:
    candidates = [shutil.which("k6"), str(Path.home() / "go/bin/k6")]
    found = next((path for path in candidates if path and Path(path).exists()), None)
    if found:
        return found
    if shutil.which("go") is None:
        raise DeployFailure(
            "k6 is not installed: see https://grafana.com/docs/k6/latest/set-up/install-k6/"
        )
    print(f"  · building {_K6_MODULE} with Go (once, some minutes)", flush=True)
    if subprocess.run(["go", "install", _K6_MODULE], check=False).returncode != 0:
        raise DeployFailure("k6 could not be built; what Go said is above.")
    return _find_k6()


def _create_product() -> str:
    try:
        answer = requests.post(
            os.environ["PRODUCT_API_URL"],
            json={"name": "Load test", "price": 100, "qty": _STOCK},
            timeout=5,
        )
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DeployFailure(f"No product could be created to order: {error}") from error
    return str(answer.json()["id"])


if __name__ == "__main__":
    sys.exit(main())
