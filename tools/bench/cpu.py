"""CPU time by process: of the processes of one system, and of no other on this machine."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from deploy.console import table

# What is less is printed as 0.00.
_LEAST_SHOWN = 0.005
_HUNDRED = 100


@dataclass(frozen=True)
class Cost:
    """CPU time of one request, in milliseconds."""

    by_process: Mapping[str, float]
    generator: float

    @property
    def system(self) -> float:
        """All of it but the generator's."""
        return sum(self.by_process.values())


class Meter:
    """Reads the CPU time of processes, each with all its descendants, from its start on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._start = cpu_ms(pids)

    def cost(self, *, requests: int, generator_ms: float) -> Cost:
        """Return what each of so many requests has cost so far."""
        now = cpu_ms(self._pids)
        count = max(requests, 1)
        spent = {name: (now[name] - before) / count for name, before in self._start.items()}
        return Cost(spent, generator_ms / count)


def cpu_ms(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time so far of each named process with its descendants, in milliseconds.

    Descendants that have ended count too: their parents have inherited their time.
    """
    totals = dict.fromkeys(pids, 0.0)
    for name, pid in pids.items():
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    # Its own, and that of its children which were waited for.
                    totals[name] += sum(process.cpu_times()[:4]) * 1000
    return totals


def cpu_table(costs: Sequence[tuple[str, Cost, Cost | None]]) -> str:
    """Lay out what requests cost by process: a title, the cost, and a bare view's if known."""
    names = [
        name
        for name in dict.fromkeys(name for _, cost, _ in costs for name in cost.by_process)
        if any(cost.by_process.get(name, 0) >= _LEAST_SHOWN for _, cost, _ in costs)
    ]
    rows = [["CPU ms per request", *names, "system", "generator", "generator's share"]]
    for title, cost, bare in costs:
        rows.append(_cells(title, cost, names))
        if bare is not None:
            rows.append(_cells("  bare view", bare, names))
            numbers = [*(cost.by_process.get(name) for name in names), cost.system]
            multiples = [multiple(number, bare.system) for number in numbers]
            rows.append(["  x bare view", *multiples, "", ""])
    return table(rows, numbers=True)


def multiple(number: float | None, of: float) -> str:
    """Write how many times as much one number is as another, with about three digits."""
    if number is None or not of:
        return ""
    times = number / of
    return f"{times:,.{0 if times >= _HUNDRED else 2}f}x"


def _cells(title: str, cost: Cost, names: Sequence[str]) -> list[str]:
    numbers = [cost.by_process.get(name) for name in names]
    share = cost.generator / (cost.system + cost.generator or 1)
    return [
        title,
        *("" if number is None else f"{number:.2f}" for number in numbers),
        f"{cost.system:.2f}",
        f"{cost.generator:.2f}",
        f"{share:.0%}",
    ]
