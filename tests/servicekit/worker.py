"""Processes as they run in production, on the test's own servers."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.db import connection

from deploy.broker import QUEUES_OF
from deploy.processes import SERVICES
from deploy.settings import ROOT
from tests.servicekit.private_broker import VirtualHost, eventually, unused_port


def database_url(service: str) -> str:
    """The address of the database of the tests."""
    url = urlsplit(os.environ[f"{service.upper()}_DATABASE_URL"])
    return url._replace(path=f"/{connection.settings_dict['NAME']}").geturl()


@contextlib.contextmanager
def running_web(
    application: str, directory: Path, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run an application as an installation does; give its master process, and where it listens."""
    port, log = unused_port(), directory / "log"
    place = ["--bind", f"127.0.0.1:{port}", application]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py", *place],
            cwd=ROOT,
            env={
                **os.environ, "WEB_WORKERS": "1",
                "PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics"), **environment,
            },
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        # It may be connected to long before it answers.
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"http://127.0.0.1:{port}/health/live", timeout=10).ok
        return False

    try:
        eventually(answers, within_seconds=120)
        yield process, port
    finally:
        process.terminate()
        process.wait(30)


def child_of(master: subprocess.Popen[bytes]) -> int:
    """The process that answers."""
    children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text()
    return int(children.split()[0])


@contextlib.contextmanager
def running_worker(
    service: str, broker: VirtualHost, directory: Path, **changed: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the worker of a service, by the command that an installation uses, while it is needed."""
    [process] = [each for each in SERVICES if each.name == f"{service}-worker"]
    program, *arguments = process.command
    alive, log = directory / "alive", directory / "log"
    environment = {
        **os.environ,
        "BROKER_URL": broker.url,
        f"{service.upper()}_DATABASE_URL": database_url(service),
        "WORKER_ALIVE_FILE": str(alive),
        "WORKER_METRICS_PORT": "",
        **changed,
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


def assert_all_queues_are_known(service: str) -> None:
    """What the admin and the broker take for a worker's queues is what the worker consumes."""
    # They set Django up, which is done by now.
    app = import_module(f"celery_workers.{service}.celery").app
    subscriptions = import_module(settings.WORKER_SOURCES.rpartition(".")[0]).SUBSCRIPTIONS
    consumed = [each.queue for each in subscriptions] + [each.name for each in app.conf.task_queues]

    assert sorted(settings.WORKER_QUEUES) == sorted(consumed)
    assert set(settings.WORKER_QUEUES) == set(QUEUES_OF[service])
