"""`/metrics` of several web processes together, and of a worker."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from django.db import connection, transaction
from django.test import RequestFactory
from django.urls import resolve
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from servicekit import worker_metrics
from servicekit.contracts.events import OrderCreated
from servicekit.http.measuring import NO_ROUTE, method_of, route_of
from servicekit.identifiers import new_id
from servicekit.outbox import recording
from tests.servicekit.private_broker import eventually, unused_port
from tests.servicekit.worker import running_web

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(url: str) -> Samples:
    answer = requests.get(f"{url}/metrics", timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


class WebService:
    """The product service under gunicorn, with two worker processes."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.directory = folder / "metrics"
        self.log = folder / "log"

    def counting(self) -> set[int]:
        """The processes that have begun to count."""
        self.get("/health/live")
        return {int(file.stem.rpartition("_")[2]) for file in self.directory.glob("histogram_*")}

    def get(self, path: str, **headers: str) -> None:
        # A connection of its own each time, so that both processes get their share.
        with contextlib.suppress(requests.ConnectionError):
            headers = {"Connection": "close", **headers}
            requests.get(self.url + path, headers=headers, timeout=30)


@pytest.fixture
def service(tmp_path) -> Iterator[WebService]:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter_1.db").write_bytes(b"of an earlier start")
    settings = {"WEB_WORKERS": "2", "LOG_FORMAT": "json", "LOG_LEVEL": "DEBUG"}
    application = "products_project.config.wsgi:application"
    with running_web(application, tmp_path, **settings) as (_, port):
        service = WebService(tmp_path, port)
        eventually(lambda: len(service.counting()) == 2)
        yield service
    assert not service.directory.exists()


LIVE = frozenset({("method", "GET"), ("route", "/health/live"), ("status", "2xx")})


class TestTwoWebProcesses:
    def test_answer_for_each_other_and_for_those_that_have_died(self, service):
        name = "http_request_duration_seconds_count"
        before = samples(service.url)[name, LIVE]
        for _ in range(20):
            service.get("/health/live")

        # Whichever answers, however often it is asked.
        assert {samples(service.url)[name, LIVE] for _ in range(10)} == {before + 20}

        victim = min(service.counting())
        waiting = service.directory / f"gauge_livesum_{victim}.db"
        counted = samples(service.url)[name, LIVE]
        assert waiting.exists()
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not waiting.exists())

        assert samples(service.url)[name, LIVE] >= counted

    def test_say_everything_in_json_when_asked_to(self, service):
        service.get("/a%0Ab", **{"X-Request-ID": "me-1"})
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]

        loggers = {each["logger"] for each in lines}
        assert loggers >= {"gunicorn.error", "servicekit.http.request_id"}
        [access] = [each for each in lines if each.get("request_id") == "me-1"]
        assert access["message"] == "GET /a\nb: 404"


class TestRouteOf:
    def of(self, path: str) -> str:
        request = RequestFactory().get(path)
        request.resolver_match = resolve(path)
        return route_of(request)

    def test_is_the_same_for_everything_of_one_kind(self):
        assert self.of(f"/products/{new_id()}") == self.of(f"/products/{new_id()}")
        assert self.of(f"/products/{new_id()}") == "/products/<pk>"
        assert self.of("/products") == "/products"

    @pytest.mark.parametrize("path", ["/nowhere", "/products/7", "/a/b/c.php"])
    def test_is_one_for_all_that_leads_nowhere(self, path):
        assert self.of(path) == NO_ROUTE

    def test_is_one_for_the_whole_admin(self):
        assert self.of("/admin/") == self.of("/admin/auth/user/7/change/") == "/admin/"

    def test_is_none_before_there_is_one(self):
        assert route_of(RequestFactory().get("/")) == NO_ROUTE

    def test_comes_with_a_method_that_nobody_has_thought_up(self):
        assert method_of(RequestFactory().generic("PATCH", "/")) == "PATCH"
        assert method_of(RequestFactory().generic("BREW", "/")) == "other"


@pytest.fixture
def worker(monkeypatch) -> Iterator[str]:
    """The metrics server of a worker."""
    port = unused_port()
    monkeypatch.setenv("WORKER_METRICS_PORT", str(port))
    before = set(REGISTRY._collector_to_names)
    server = worker_metrics.serve()
    yield f"http://127.0.0.1:{port}"
    server.shutdown()
    server.server_close()
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


def record(*order_ids: int) -> None:
    with transaction.atomic():
        recording.record_all(
            OrderCreated(order_id=each, product_id=new_id(), quantity=1) for each in order_ids
        )


@pytest.mark.django_db(transaction=True)
class TestAWorker:
    def test_tells_the_depth_of_its_outbox_and_the_age_of_the_first(self, worker):
        record(1, 2)
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE outbox_event SET recorded_at = now() - interval '1 hour' WHERE id ="
                " (SELECT min(id) FROM outbox_event)"
            )
        told = samples(worker)

        assert told["outbox_events", frozenset()] == 2
        assert 3600 <= told["outbox_oldest_event_age_seconds", frozenset()] < 3700

    def test_tells_of_an_empty_outbox_that_nothing_waits(self, worker):
        told = samples(worker)

        assert told["outbox_events", frozenset()] == 0
        assert told["outbox_oldest_event_age_seconds", frozenset()] == 0

    def test_counts_no_further_than_anybody_needs_to_know(self, worker, monkeypatch):
        monkeypatch.setattr(worker_metrics, "COUNT_LIMIT", 2)
        record(1, 2, 3)

        assert samples(worker)["outbox_events", frozenset()] == 2

    def test_leaves_out_what_is_in_the_database_while_it_is_away(self, worker, monkeypatch):
        with monkeypatch.context() as away:
            away.setitem(connection.settings_dict, "PORT", unused_port())
            told = samples(worker)

        assert not {"outbox_events", "dead_letters"} & {name for name, _ in told}
        assert "python_info" in {name for name, _ in told}

    def test_leaves_no_connection_behind(self, worker):
        def connections() -> int:
            with connection.cursor() as cursor:
                query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                return int(cursor.execute(query).fetchone()[0])

        before = connections()
        for _ in range(3):
            samples(worker)
        eventually(lambda: connections() == before)


class TestServe:
    def test_does_nothing_without_a_port(self, monkeypatch):
        monkeypatch.setenv("WORKER_METRICS_PORT", "")
        before = threading.active_count()

        assert worker_metrics.serve() is None
        assert threading.active_count() == before

    def test_leaves_the_worker_alone_when_the_port_is_taken(self, worker, monkeypatch, caplog):
        monkeypatch.setenv("WORKER_METRICS_PORT", worker.rpartition(":")[2])

        assert worker_metrics.serve() is None
        assert "no metrics on 127.0.0.1" in caplog.text
