"""The pure parts of `make bench`, and its reading of CPU times."""

import os
import signal
import subprocess
import sys

import pytest

from deploy.console import table
from tests.servicekit.private_broker import eventually
from tools.bench.cpu import Cost, cpu_ms, cpu_table, multiple
from tools.bench.k6 import outcome

BURN = """
import sys, time
while time.process_time() < float(sys.argv[1]): pass
"""
# Burns in a child that has ended, then waits to be looked at.
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}, sys.argv[1]], check=True)
print("done", flush=True)
sys.stdin.read()
"""
# As k6 1.8 exports them, shortened.
METRICS = {
    "http_req_failed": {"passes": 3, "fails": 1497, "value": 0.002},
    "http_req_duration": {"med": 1, "p(95)": 2, "p(99)": 3},
    "http_req_duration{expected_response:true}": {"med": 4.5, "p(95)": 9.25, "p(99)": 20},
}


class TestCpuMs:
    @pytest.fixture
    def parents(self):
        """Two processes that do the same, with a child each that has ended."""
        command = [sys.executable, "-c", PARENT]
        started = [
            subprocess.Popen([*command, "0.3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for process in started:
            assert process.stdout.readline() == b"done\n"
        yield started
        for process in started:
            process.communicate()

    def test_counts_children_that_have_ended_and_nobody_twice_or_else(self, parents):
        alone = cpu_ms({"it": parents[0].pid})
        together = cpu_ms({"it": parents[0].pid, "other": parents[1].pid})

        assert 280 < alone["it"] < 5_000
        # Neither of them does anything now.
        assert together["it"] == alone["it"]

    def test_counts_children_that_run(self):
        shell = subprocess.Popen(
            ["sh", "-c", 'python3 -c "while True: pass" & echo $!; wait'], stdout=subprocess.PIPE
        )
        child = int(shell.stdout.readline())
        try:
            eventually(lambda: cpu_ms({"it": shell.pid})["it"] > 100)
        finally:
            os.kill(child, signal.SIGKILL)
            shell.communicate()

    def test_of_a_process_that_is_gone_is_nothing(self):
        assert cpu_ms({"it": 2**22 + 1}) == {"it": 0}


class TestOutcome:
    def test_is_read_from_the_summary_with_the_times_of_good_answers_only(self):
        read = outcome(METRICS, generator_ms=5)

        assert (read.answered, read.failed, read.dropped) == (1497, 3, 0)
        assert (read.p50, read.p95, read.p99) == (4.5, 9.25, 20)
        assert outcome({**METRICS, "dropped_iterations": {"count": 7}}, generator_ms=5).dropped == 7


class TestCpuTable:
    def test_compares_each_process_with_the_bare_view(self):
        ours = Cost({"order-service": 2.0, "redis": 0.5}, generator=0.5)
        bare = Cost({"order-service": 0.5}, generator=0.5)

        heading, *rows = (line.split() for line in cpu_table([("it", ours, bare)]).splitlines())

        assert heading[4:6] == ["order-service", "redis"]
        assert rows == [
            ["it", "2.00", "0.50", "2.50", "0.50", "17%"],
            ["bare", "view", "0.50", "0.50", "0.50", "50%"],
            ["x", "bare", "view", "4.00x", "1.00x", "5.00x"],
        ]

    def test_leaves_out_who_did_nothing(self):
        assert "epmd" not in cpu_table([("it", Cost({"redis": 1.0, "epmd": 0.004}, 1.0), None)])


class TestMultiple:
    @pytest.mark.parametrize(
        ("number", "of", "written"),
        [(3.0, 2.0, "1.50x"), (25.0, 2.0, "12.50x"), (2468.0, 2.0, "1,234x"), (3.0, 0.0, "")],
    )
    def test_has_three_digits_or_so(self, number, of, written):
        assert multiple(number, of) == written


class TestTable:
    def test_aligns_numbers_on_the_right(self):
        rows = [["name", "n"], ["a", "10"]]

        assert table(rows, numbers=True) == "name   n\na     10"
        assert table(rows) == "name  n\na     10"
