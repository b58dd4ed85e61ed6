"""A worker as it runs in production, on the test's own broker and database."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from django.db import connection

from deploy.processes import SERVICES
from deploy.settings import ROOT
from tests.servicekit.private_broker import VirtualHost, eventually


@contextlib.contextmanager
def running_worker(
    service: str, broker: VirtualHost, directory: Path, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the worker of a service, by the command that an installation uses, while it is needed."""
    [process] = [each for each in SERVICES if each.name == f"{service}-worker"]
    program, *arguments = process.command
    variable = f"{service.upper()}_DATABASE_URL"
    database = urlsplit(os.environ[variable])._replace(path=f"/{connection.settings_dict['NAME']}")
    alive, log = directory / "alive", directory / "log"
    environment = {
        **os.environ,
        "BROKER_URL": broker.url,
        variable: database.geturl(),
        "WORKER_ALIVE_FILE": str(alive),
        "WORKER_METRICS_PORT": "",
        **settings,
    }
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", program, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            eventually(lambda: alive.exists() or worker.poll() is not None, within_seconds=60)
            assert worker.poll() is None, log.read_text(errors="replace")
            yield worker
            assert worker.poll() is None, log.read_text(errors="replace")
        finally:
            worker.terminate()
            worker.wait(20)
