"""One fault, from a calm second before it to the moment when all books agree again."""

import random
import time
from dataclasses import dataclass

import psycopg

from deploy.failure import DeployFailure
from tools.chaos import books
from tools.chaos.books import Findings
from tools.chaos.client import Load
from tools.chaos.faults import SERVERS, Fault, Scene
from tools.chaos.harness import Harness
from tools.ledger import check_ledger

_CALM_SECONDS = 1.0
_ERRORS = {*range(500, 600)} - {503}
#: Longer than the watchdog's half minute, and once more.
_PATIENCE_SECONDS = 100.0


@dataclass(kw_only=True)
class Result:
    """What a fault did."""

    fault: Fault
    found: Findings
    rate: float
    accepted: int
    refused: list[str]
    errors: list[str]
    slow: list[str]
    longest_seconds: float
    #: From healing until an order that was placed after it was confirmed; None if none was in time.
    confirmed_seconds: float | None
    #: From healing until nothing was on its way any more and all books agreed; likewise.
    recovered_seconds: float | None
    #: What was last waited for.
    waited_for: str
    ledger: list[str]

    @property
    def broken(self) -> list[str]:
        """What contradicts the promises whatever the machine's speed, in sentences."""
        kinds = ["lost", "unexpected", "mismatch", "doubled"]
        if not self.fault.forgets_attempts:
            kinds.append("retold")
        sentences = [f"{kind}: {each}" for kind in kinds for each in getattr(self.found, kind)]
        sentences += [f"ledger: {each}" for each in self.ledger]
        sentences += [f"error: {each}" for each in self.errors]
        if self.confirmed_seconds is None:
            sentences.append(f"no new order was confirmed within {_PATIENCE_SECONDS:.0f} s")
        if self.recovered_seconds is None:
            sentences.append(f"not at rest after {_PATIENCE_SECONDS:.0f} s")
        return sentences


def run(stack: Harness, fault: Fault, *, seed: int, seconds: float, rate: float) -> Result:
    """Have a fault happen under load, heal it, and compare all books."""
    scene = Scene(stack, random.Random(f"{seed} {fault.name}"))
    dead_before = _dead_letters(stack)
    with scene.through_proxies(fault.links):
        with Load(stack.environment, rate=rate, seed=f"{seed}") as load:
            time.sleep(_CALM_SECONDS)
            with fault.act(scene):
                time.sleep(seconds)
            stack.wait_ready(*SERVERS)
            healed = time.monotonic()
            has_confirmed = load.confirm_one(timeout_seconds=_PATIENCE_SECONDS)
            confirmed = time.monotonic() - healed
        recovered, waited_for, ledger = _agreement(stack, scene, dead_before, since=healed)
    stack.wait_ready()
    placed = [each for order in load.orders for each in order.placed]
    answers = [each for each in load.http.answers if each.service not in fault.silent]
    return Result(
        fault=fault,
        found=books.compare(load, stack.environment),
        rate=len(placed) / load.seconds,
        accepted=sum(each.status == 201 for each in placed),
        refused=books.wrongly_refused(load) if fault.accepts else [],
        errors=[f"{each.request}: {each.body}" for each in answers if each.status in _ERRORS],
        slow=books.slow(answers),
        longest_seconds=max((each.seconds for each in answers), default=0.0),
        confirmed_seconds=confirmed if has_confirmed else None,
        recovered_seconds=recovered,
        waited_for=waited_for,
        ledger=ledger,
    )


def _agreement(
    stack: Harness, scene: Scene, dead_before: int, *, since: float
) -> tuple[float | None, str, list[str]]:
    """Wait until all books agree; return how long, for what at last, and what differs still."""
    at_rest, waited_for = 0.0, ""

    def note(what: str) -> None:
        nonlocal at_rest, waited_for
        if what == "comparing":
            at_rest = time.monotonic() - since
        else:
            waited_for = what

    while True:
        left = since + _PATIENCE_SECONDS - time.monotonic()
        try:
            report = check_ledger(stack.environment, wait_seconds=max(0.0, left), progress=note)
            differences = report.differences
            dead = _dead_letters(stack) - dead_before
            if dead != scene.poison:
                differences.append(
                    f"{scene.poison} poison messages were sent, {dead} are dead-lettered"
                )
        except (DeployFailure, psycopg.Error) as failure:
            differences = [str(failure)]
        if not differences or left < 0:
            return None if differences else at_rest, waited_for, differences
        waited_for = differences[0]
        time.sleep(0.5)


def _dead_letters(stack: Harness) -> int:
    count = 0
    for name in ("ORDERS_DATABASE_URL", "PRODUCTS_DATABASE_URL"):
        with psycopg.connect(stack.environment[name]) as connection:
            count += connection.execute("SELECT FROM dead_letter").rowcount
    return count
