"""What people try first in a clone after `make up`, with nothing exported."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from deploy.by_hand import write_addresses
from deploy.settings import ENV_EXAMPLE, ROOT
from tests.servicekit.private_broker import unused_port
from tests.system.shop import eventually

Run = Callable[..., subprocess.CompletedProcess[str]]


class Clone:
    """A copy of the sources, with the files that `make up` leaves there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        bin_directory = Path(sys.executable).parent
        self._environment = {"PATH": f"{bin_directory}:{os.environ['PATH']}", "HOME": str(root)}

    def run(self, *command: str, cwd: str = ".", **variables: str) -> str:
        """Run a command to its end, and return what it says."""
        done = subprocess.run(
            command, cwd=self.root / cwd, env={**self._environment, **variables},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    @contextmanager
    def running(self, *command: str, cwd: str = ".") -> Iterator[None]:
        """Run a command in the background."""
        process = subprocess.Popen(command, cwd=self.root / cwd, env=self._environment)
        try:
            yield
            assert process.poll() is None, f"{command} has ended"
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def clone(stack, tmp_path_factory) -> Clone:
    root = tmp_path_factory.mktemp("clone")
    for name in ("servicekit", "orders_project", "products_project", "celery_workers"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ENV_EXAMPLE, root / ".env")
    write_addresses(stack.environment, root / ".run")
    return Clone(root)


@pytest.mark.parametrize("service", ["orders", "products"])
class TestManage:
    @pytest.fixture
    def manage(self, clone, service) -> Callable[..., str]:
        def run(*arguments: str, **variables: str) -> str:
            command = ("python", "manage.py", *arguments)
            return clone.run(*command, cwd=f"{service}_project", **variables)

        return run

    def test_check_finds_the_settings(self, manage):
        assert "no issues" in manage("check")

    def test_migrate_changes_tables_as_their_owner(self, manage):
        assert "Unapplying access.0001_initial... OK" in manage("migrate", "access", "zero")
        assert "Applying access.0001_initial... OK" in manage("migrate")

    def test_shell_runs_as_the_service_does(self, manage, service):
        program = "from django.db import connection; print(connection.settings_dict['USER'])"

        assert f"{service}_runtime" in manage("shell", "-c", program)

    def test_createsuperuser_makes_an_account(self, manage):
        arguments = ["createsuperuser", "--noinput", "--username=ada", "--email=ada@shop.example"]

        assert "created" in manage(*arguments, DJANGO_SUPERUSER_PASSWORD="ada-has-a-password")

    def test_test_says_where_the_tests_are(self, manage, service):
        with pytest.raises(AssertionError, match=f"The tests are in tests/{service}"):
            manage("test", "-k", "something")


def test_runserver_takes_orders(clone, shop):
    product = shop.create_product(qty=5)
    port = unused_port()
    order: dict[str, Any] = {"productId": product["id"], "quantity": 2}

    def place() -> str | None:
        try:
            answer = shop.http.post(f"http://127.0.0.1:{port}/orders", json=order, timeout=30)
        except requests.ConnectionError:
            return None
        return answer.json()["id"] if answer.status_code == 201 else None

    with clone.running("python", "manage.py", "runserver", str(port), cwd="orders_project"):
        order_id = eventually(place, within_seconds=120)

    assert shop.final_status(order_id) == "CONFIRMED"


def test_the_calls_of_the_readme_can_be_pasted_and_answer_what_it_shows(shop, tmp_path):
    flow = (ROOT / "README.md").read_text().split("## The flow, by hand\n")[1].split("\n## ")[0]
    steps = re.findall(r"```sh\n(.*?)```\n```\n(.*?)\n```", flow, re.DOTALL)
    assert len(steps) == flow.count("```sh")
    # No progress, as in a terminal, and straight to this machine.
    (tmp_path / ".curlrc").write_text('silent\nnoproxy = "*"\n')
    (tmp_path / "variables").touch()

    def here(text: str) -> str:
        for port, address in (("3001", shop.products), ("3002", shop.orders)):
            text = text.replace(f"localhost:{port}", f"localhost:{urlsplit(address).port}")
        return text

    def same_each_time(text: str) -> str:
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]+){4}", "ID", text)
        return re.sub(r'(?<=":)(?:"\d{4}-[\d:.T-]+Z"|\d+(?=\}))', "WHEN", text)

    for calls, shown in steps:
        script = f". ./variables\n{here(calls)}\ndeclare -p PRODUCT ORDER 2>/dev/null >variables"
        expected = re.escape(same_each_time(here(shown))).replace("…", ".*")

        def comes(script: str = script, expected: str = expected) -> bool:
            done = subprocess.run(
                ["bash", "-c", script], cwd=tmp_path,
                env={**os.environ, "CURL_HOME": str(tmp_path)}, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
            )  # fmt: skip
            return bool(re.fullmatch(expected, same_each_time(done.stdout).strip(), re.DOTALL))

        # Again where it was "not now", or the machine so slow that another answer came.
        eventually(comes, within_seconds=120)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("service", ["orders", "products"])
class TestCelery:
    def test_worker_does_the_work_of_an_installation(self, clone, shop, stack, service):
        product = shop.create_product(qty=5)
        stack.stop_process(f"{service}-worker")
        with clone.running("celery", "-A", f"celery_workers.{service}", "worker"):
            order_id = shop.order(product["id"]).json()["id"]
            assert shop.final_status(order_id, timeout_seconds=120) == "CONFIRMED"
        stack.start_process(f"{service}-worker")

    @pytest.mark.parametrize("command", ["inspect ping", "status", "control heartbeat"])
    def test_is_answered_by_the_worker(self, clone, service, command):
        # Asked again: it waits a second for an answer, which may be too short here.
        def answer() -> str | None:
            try:
                return clone.run("celery", "-A", f"celery_workers.{service}", *command.split())
            except AssertionError:
                return None

        assert "OK" in eventually(answer, within_seconds=120)

    def test_hears_how_the_worker_is(self, clone, service):
        # What Flower shows.
        program = (
            f"from celery_workers.{service}.celery import app\n"
            "with app.connection_for_read() as connection:\n"
            "    handlers = {'worker-heartbeat': print}\n"
            "    app.events.Receiver(connection, handlers).capture(limit=1, timeout=60)\n"
        )

        assert "'type': 'worker-heartbeat'" in clone.run("python", "-c", program)
