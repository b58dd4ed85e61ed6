"""The load generator: k6, and what it has to say about one step."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.failure import DeployFailure

_MODULE = "go.k6.io/k6@v1.8.1"
_SCRIPT = Path(__file__).with_name("load.js")


@dataclass(frozen=True, kw_only=True)
class Load:
    """One kind of load: so many requests a second, or else so many clients."""

    seconds: int
    rate: int | None = None
    clients: int | None = None

    def __str__(self) -> str:
        return f"open {self.rate:,}/s" if self.rate else f"closed {self.clients}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the requests; times in milliseconds, of those that were answered well."""

    answered: int
    failed: int
    #: Those of an open loop that could not be sent, because all clients were waiting.
    dropped: int
    p50: float
    p95: float
    p99: float
    #: CPU time of k6 itself.
    generator_ms: float


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run of a script: how k6 ended, what it counted, and the CPU time that it took itself."""

    status: int
    metrics: Mapping[str, Any]
    generator_ms: float
    error: str


def measure(load: Load, url: str, *, body: str = "") -> Outcome:
    """Send requests to an address, GET without a body and POST with one.

    :raises DeployFailure: if k6 is not there, or fails
    """
    variables = {"URL": url, "BODY": body, "SECONDS": str(load.seconds)}
    variables |= {"RATE": str(load.rate or ""), "VUS": str(load.clients or "")}
    finished = run(_SCRIPT, variables, quiet=True)
    if finished.status != 0:
        raise DeployFailure(f"k6 failed: {finished.error.strip()}")
    return outcome(finished.metrics, generator_ms=finished.generator_ms)


def run(script: Path, variables: Mapping[str, str], *, quiet: bool = False) -> Finished:
    """Run a script; unless `quiet`, what k6 prints goes to the terminal.

    :raises DeployFailure: if k6 is not there
    """
    with tempfile.TemporaryDirectory() as directory:
        summary = Path(directory) / "summary.json"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        k6 = subprocess.run(
            [find_k6(), "run", "--no-usage-report", "--summary-export", summary, script],
            env={**os.environ, **variables},
            capture_output=quiet,
            text=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Finished(
            status=k6.returncode,
            # Missing when it did not even begin.
            metrics=json.loads(summary.read_text())["metrics"] if summary.exists() else {},
            generator_ms=spent * 1000,
            error=k6.stderr or "",
        )


def outcome(metrics: Mapping[str, Any], *, generator_ms: float) -> Outcome:
    """Read k6's summary."""
    # A rate that counts failures: what k6 calls its passes are the requests that failed.
    requests = metrics["http_req_failed"]
    times = metrics["http_req_duration{expected_response:true}"]
    return Outcome(
        answered=requests["fails"],
        failed=requests["passes"],
        dropped=metrics.get("dropped_iterations", {}).get("count", 0),
        p50=times["med"],
        p95=times["p(95)"],
        p99=times["p(99)"],
        generator_ms=generator_ms,
    )


def find_k6() -> str:
    """Return the program, built with Go if it is not there yet.

    :raises DeployFailure: if there is none, and no Go
    """
    places = f"{os.environ['PATH']}:{Path.home() / 'go/bin'}"
    if found := shutil.which("k6", path=places):
        return found
    if shutil.which("go") is None:
        raise DeployFailure(
            "k6 is not installed: see https://grafana.com/docs/k6/latest/set-up/install-k6/"
        )
    print(f"  · building {_MODULE} with Go (once, some minutes)", flush=True)
    if subprocess.run(["go", "install", _MODULE], check=False).returncode != 0:
        raise DeployFailure("k6 could not be built; what Go said is above.")
    return find_k6()
