"""`make load`: the load profile of k6/create_orders.js, what it cost, and then the ledger.

A load test that only looks for the status 201 sees no lost order and no oversold unit. So the
books are checked afterwards, and both have to be right.
"""

import os
import subprocess
import sys
from datetime import UTC, datetime

from deploy.choice import choose
from deploy.console import Progress
from deploy.failure import DeployFailure
from deploy.settings import ROOT, load
from tools.bench import k6
from tools.bench.cpu import Meter, cpu_table
from tools.orders import create_product, wait_until_final


def main() -> int:
    """Run k6, then the ledger; return 0 if both are content."""
    try:
        status = _order_and_count_the_cost()
    except DeployFailure as failure:
        print(failure, file=sys.stderr)
        return 1
    print("\nThe ledger:\n", flush=True)
    books = subprocess.run([sys.executable, "-m", "tools.ledger"], cwd=ROOT, check=False)
    return status or books.returncode


def _order_and_count_the_cost() -> int:
    product = os.environ.get("PRODUCT_ID") or create_product(os.environ["PRODUCT_API_URL"])
    base_url = os.environ["ORDER_API_URL"].rsplit("/", 1)[0]
    pids = choose(load(), Progress()).pids
    meter, since = Meter(pids), datetime.now(UTC)
    script = ROOT / "k6" / "create_orders.js"
    finished = k6.run(script, {"PRODUCT_ID": product, "BASE_URL": base_url})
    accepted = finished.metrics.get("checks", {}).get("passes", 0)
    if not accepted:
        return finished.status or 1
    database = os.environ["ORDERS_DATABASE_URL"]
    seconds = wait_until_final(database, product, accepted, since=since)
    print(f"\n{accepted:,} orders, all final {seconds:.1f} s after the last was accepted.\n")
    if pids:
        cost = meter.cost(requests=accepted, generator_ms=finished.generator_ms)
        print(cpu_table([("POST /orders", cost, None)]))
    else:
        print("What it cost by process is known where the system runs without containers.")
    return finished.status


if __name__ == "__main__":
    sys.exit(main())
