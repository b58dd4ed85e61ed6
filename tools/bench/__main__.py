"""`make bench`: what orders and reads cost in a system of its own, beside a bare Django view."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from deploy.console import TerminalProgress, table
from deploy.failure import DeployFailure
from deploy.native.stack import Stack
from tools.bench import k6
from tools.bench.bare import bare_view
from tools.bench.cpu import Cost, Meter, cpu_table, multiple
from tools.bench.k6 import Load, Outcome
from tools.ledger import check_ledger
from tools.orders import create_product, wait_until_final

_CLIENTS = 64
_RATES = (100, 300, 600, 1000)
_WARM_UP = Load(seconds=2, clients=16)

_Drain = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One load on one address."""

    outcome: Outcome
    cost: Cost
    #: From the last acceptance to the last final status; None of reads.
    drained_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One load on our system, and the same on the bare view."""

    title: str
    ours: Result
    bare: Result


class Bench:
    """Measures a system that nobody else uses."""

    def __init__(self, stack: Stack) -> None:
        self._pids = stack.pids
        self._orders_database = stack.environment["ORDERS_DATABASE_URL"]
        self._products_url = stack.environment["PRODUCT_API_URL"]
        self._orders_url = stack.environment["ORDER_API_URL"]
        self._product = ""

    def orders(self, load: Load) -> Step:
        """Order a new product."""
        bare = _bare("order-service", load, body=_order_of(self._product))
        return Step(title=f"POST /orders, {load}", ours=self.order(load), bare=bare)

    def product(self, load: Load) -> Step:
        """Read the product that was ordered last."""
        url = f"{self._products_url}/{self._product}"
        return self._read("GET /products/{id}", "product-service", load, url)

    def first_page(self, load: Load) -> Step:
        """Read the newest orders of the product that was ordered last."""
        url = f"{self._orders_url}?productId={self._product}"
        return self._read("GET /orders?productId=", "order-service", load, url)

    def _read(self, title: str, service: str, load: Load, url: str) -> Step:
        bare = _bare(service, load)
        return Step(title=f"{title}, {load}", ours=_measure(self._pids, load, url), bare=bare)

    def order(self, load: Load) -> Result:
        """Order a new product, and wait until all of its orders are final."""
        self._product = create_product(self._products_url)
        now, body = datetime.now(UTC), _order_of(self._product)
        drain = partial(wait_until_final, self._orders_database, self._product, since=now)
        return _measure(self._pids, load, self._orders_url, body=body, drain=drain)


def _order_of(product: str) -> str:
    return json.dumps({"productId": product, "quantity": 1})


def _bare(service: str, load: Load, *, body: str = "") -> Result:
    with bare_view(service) as (url, pid):
        # It answers as soon as its first process does; the others are still being started.
        k6.measure(_WARM_UP, url)
        return _measure({service: pid}, load, url, body=body)


def _measure(
    pids: Mapping[str, int], load: Load, url: str, *, body: str = "", drain: _Drain | None = None
) -> Result:
    meter = Meter(pids)
    outcome = k6.measure(load, url, body=body)
    # Before the cost is read: an order costs until it is final.
    drained = drain(outcome.answered) if drain else None
    cost = meter.cost(requests=outcome.answered, generator_ms=outcome.generator_ms)
    return Result(outcome=outcome, cost=cost, drained_seconds=drained)


def times_table(steps: Sequence[Step]) -> str:
    """Lay out what became of the requests, and how long they took."""
    heading = ["", "answered", "failed", "dropped", "p50 ms", "p95 ms", "p99 ms", "drained s"]
    rows = [heading]
    for step in steps:
        ours, bare = step.ours.outcome, step.bare.outcome
        drained = step.ours.drained_seconds
        rows.append([step.title, *_cells(ours), "" if drained is None else f"{drained:.1f}"])
        rows.append(["  bare view", *_cells(bare), ""])
        answered = multiple(ours.answered, bare.answered)
        times = [multiple(*pair) for pair in zip(_times(ours), _times(bare), strict=True)]
        rows.append(["  x bare view", answered, "", "", *times, ""])
    return table(rows, numbers=True)


def _times(outcome: Outcome) -> tuple[float, float, float]:
    return outcome.p50, outcome.p95, outcome.p99


def _cells(outcome: Outcome) -> list[str]:
    counts = (outcome.answered, outcome.failed, outcome.dropped)
    return [*(f"{count:,}" for count in counts), *(f"{ms:.1f}" for ms in _times(outcome))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and check the ledger; return 0 if it agrees."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=15, help="of each step (default: 15)")
    parser.add_argument(
        "--rates", type=int, nargs="*", default=_RATES, help="orders a second of the open loops"
    )
    options = parser.parse_args(arguments)
    closed = Load(seconds=options.seconds, clients=_CLIENTS)
    loads = [closed, *(Load(seconds=options.seconds, rate=rate) for rate in options.rates)]
    progress = TerminalProgress()
    try:
        k6.find_k6()
        with Stack.temporary("bench", progress) as stack:
            bench = Bench(stack)
            with progress.step("Warm up"):
                bench.order(_WARM_UP)
            measurements = [(bench.orders, load) for load in loads]
            measurements += [(bench.product, closed), (bench.first_page, closed)]
            steps = []
            for number, (measure, load) in enumerate(measurements, start=1):
                name = measure.__name__.replace("_", " ")
                with progress.step(f"{number} of {len(measurements)}: {name}, {load}"):
                    steps.append(measure(load))
            print(f"\n{times_table(steps)}\n")
            costs = [(step.title, step.ours.cost, step.bare.cost) for step in steps]
            print(f"{cpu_table(costs)}\n", flush=True)
            report = check_ledger(stack.environment)
    except DeployFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report)
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
