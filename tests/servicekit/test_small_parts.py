"""Failpoints, times, pages, problems, task messages."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from celery import Celery
from django.test import RequestFactory
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework import exceptions

from celery_workers import bootsteps
from servicekit import failpoints, threads
from servicekit.backoffice.money import MoneyField, money
from servicekit.backoffice.queues import QueueDepth
from servicekit.failpoints import FailpointError, failpoint
from servicekit.http.pagination import PageRequest, cursor_after, link_header
from servicekit.http.problems import Translation, exception_handler
from servicekit.identifiers import new_id
from servicekit.messaging.backoff import Backoff
from servicekit.messaging.celery_protocol import task_message
from servicekit.overview import system
from servicekit.timestamps import now_in_milliseconds, rfc3339
from servicekit.worker_reports import Report
from tests.servicekit.private_broker import eventually


class TestMoney:
    @pytest.mark.parametrize(
        ("amount", "digits", "shown"),
        [(10**33 + 1, 2, f"10{',000' * 9},000.01"), (1, 8, "0.00000001"), (5, 0, "5")],
    )
    def test_is_shown_exactly_and_taken_as_it_is_shown(self, settings, amount, digits, shown):
        settings.CURRENCY_DIGITS = digits

        assert money(amount) == f"{shown} {settings.CURRENCY}"
        if amount < 10**20:
            field = MoneyField(minimum=1, maximum=10)
            assert field.clean(field.prepare_value(amount)) == amount


class TestFailpoint:
    @pytest.mark.parametrize("actions", ["", "here:raise", "a:sleep=0, here:raise"])
    def test_raises_where_it_is_asked_to_and_nowhere_else(self, monkeypatch, actions):
        monkeypatch.setattr(failpoints, "_ACTIONS", failpoints._parse(actions))

        assert failpoint("there") is None
        with pytest.raises(FailpointError, match="here") if actions else nullcontext():
            failpoint("here")

    def test_refuses_an_action_it_does_not_know(self, monkeypatch):
        monkeypatch.setattr(failpoints, "_ACTIONS", failpoints._parse("here:explode"))

        with pytest.raises(ValueError, match="explode"):
            failpoint("here")

    def test_stalls(self, monkeypatch):
        monkeypatch.setattr(failpoints, "_ACTIONS", failpoints._parse("here:sleep=0.05"))
        started = time.monotonic()
        failpoint("here")

        assert time.monotonic() - started >= 0.05

    @pytest.mark.parametrize(("kill", "codes"), [("kill", [-9, -9]), ("kill={}", [-9, 0])])
    def test_kills_or_kills_once_for_a_file(self, tmp_path, kill, codes):
        armed = tmp_path / "armed"
        armed.touch()
        code = "from servicekit.failpoints import failpoint; failpoint('here'); print('survived')"
        environment = {**os.environ, "FAILPOINTS": f"here:{kill.format(armed)}"}
        command = [sys.executable, "-c", code]
        runs = [subprocess.run(command, env=environment, check=False) for _ in range(2)]

        assert [run.returncode for run in runs] == codes


class TestRfc3339:
    @given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)))  # noqa: DTZ001 - Hypothesis wants it naive
    def test_says_a_time_to_the_millisecond_and_in_utc(self, moment):
        written = rfc3339(moment)

        assert written.endswith("Z")
        assert len(written) == len("2026-11-23T10:00:00.000Z")
        assert abs(datetime.fromisoformat(written) - moment) < timedelta(milliseconds=1)

    def test_says_a_time_elsewhere_in_utc(self):
        moment = datetime(2026, 11, 23, 12, 0, tzinfo=timezone(timedelta(hours=2)))
        now = now_in_milliseconds()

        assert rfc3339(moment) == "2026-11-23T10:00:00.000Z"
        assert datetime.fromisoformat(rfc3339(now)) == now


class TestNewId:
    def test_makes_plain_uuids_of_version_7_that_are_ordered_by_time(self):
        ids = [new_id() for _ in range(1000)]

        assert {(type(each), each.version) for each in ids} == {(UUID, 7)}
        assert len(set(ids)) == 1000
        assert ids == sorted(ids)


class TestPageRequest:
    def test_is_of_the_first_page_when_nothing_is_asked_for(self):
        assert PageRequest.of({}, UUID).is_first
        assert not PageRequest.of({"limit": "1"}, UUID).is_first

    @given(st.uuids())
    def test_reads_the_cursors_that_we_write(self, last_id):
        assert PageRequest.of({"cursor": cursor_after(last_id)}, UUID).after == last_id

    @given(st.text(max_size=40))
    @example("!!!AZqvTQzHY-!!!Q2ivE0m4_w12!!!")
    @example("AZqvTQzHY-Q2ivE0m4_w12")
    def test_never_reads_anything_else(self, text):
        try:
            page = PageRequest.of({"cursor": text}, UUID)
        except exceptions.ValidationError:
            return
        assert cursor_after(page.after) == text

    def test_leads_to_the_next_page_with_everything_else_that_was_asked_for(self):
        request = RequestFactory().get("/products?search=a%26b&limit=2&cursor=old")

        assert link_header(request, "new") == {
            "Link": '<http://testserver/products?search=a%26b&limit=2&cursor=new>; rel="next"'
        }
        assert link_header(request, "") == {}


class OutOfLamps(Exception):
    """An error of a service's own."""


class TestExceptionHandler:
    handle = staticmethod(
        exception_handler(
            {OutOfLamps: Translation(409, "out_of_lamps", "7", members=lambda _error: {"left": 0})}
        )
    )

    def test_translates_an_error_of_the_service(self):
        answer = self.handle(OutOfLamps("None left."), {})

        assert (answer.status_code, answer.content_type) == (409, "application/problem+json")
        assert answer["Retry-After"] == "7"
        assert answer.data == {
            "type": "about:blank", "title": "Conflict", "status": 409, "code": "out_of_lamps",
            "detail": "None left.", "left": 0,
        }  # fmt: skip

    def test_names_each_field_that_is_wrong_however_deep(self):
        answer = self.handle(exceptions.ValidationError({"a": {"b": ["no"]}, "c": ["x", "y"]}), {})

        fields = [(error["field"], error["message"]) for error in answer.data["errors"]]
        assert fields == [("a.b", "no"), ("c", "x"), ("c", "y")]

    def test_leaves_a_bug_to_django(self):
        assert self.handle(ZeroDivisionError(), {}) is None

    def test_says_when_to_come_back_to_who_is_throttled(self):
        answer = self.handle(exceptions.Throttled(wait=3), {})

        assert (answer.status_code, answer["Retry-After"]) == (429, "3")


class TestTheSystemsRows:
    @staticmethod
    def depth(**facts):
        known = {"waiting": 0, "consumers": 1, "dead": 0, "in_hand": 0, "oldest_seconds": None}
        return QueueDepth(**{"name": "q", "trouble": "", **known, **facts})

    @pytest.mark.parametrize(
        ("seconds_ago", "consumers", "state", "figure"),
        [
            (0, 1, "well", "last sign of life 0 s ago"),
            (120, 1, "down", "last sign of life 2 min ago"),
            (0, 0, "down", "none of its queues has a consumer"),
            (0, None, "well", "last sign of life 0 s ago"),
            (None, 1, "well", "consumes its queues"),
            (None, None, "unknown", "what reports it does not answer"),
        ],
    )
    def test_say_of_a_worker_what_redis_and_rabbitmq_know(
        self, seconds_ago, consumers, state, figure
    ):
        reports = [] if seconds_ago is None else [Report(time.time() - seconds_ago, {})]
        depths = None if consumers is None else [self.depth(consumers=consumers)]

        row = system._worker(reports, depths)
        assert (row.state, row.figure) == (state, figure)

    @pytest.mark.parametrize(
        ("facts", "state", "figure"),
        [
            ({"waiting": None}, "down", "does not exist"),
            ({"in_hand": None, "dead": 1}, "well",
             "1 consumer, 0 waiting, 1 dead letter to collect"),
            ({"trouble": "no consumer", "consumers": 0}, "down",
             "no consumer, 0 waiting, 0 in hand"),
            ({"trouble": "no sign of life for 16 s"}, "down",
             "no sign of life for 16 s, 0 waiting, at least 0 in hand"),
            ({"waiting": 1000, "oldest_seconds": 90.0}, "degraded",
             "1 consumer, 1,000 waiting, 0 in hand, oldest 2 min old"),
        ],
    )  # fmt: skip
    def test_say_how_a_queue_is(self, facts, state, figure):
        row = system._queue(self.depth(**facts))

        assert (row.state, row.figure) == (state, figure)


class TestBackoff:
    def test_grows_to_its_limit_and_starts_again_after_a_success(self):
        backoff = Backoff(first_seconds=1, limit_seconds=8)
        pauses = [backoff.next_seconds() for _ in range(6)]
        backoff.reset()

        for pause, ceiling in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True):
            assert ceiling / 2 <= pause <= ceiling
        assert backoff.next_seconds() <= 1

    def test_never_overflows(self):
        backoff = Backoff()

        assert max(backoff.next_seconds() for _ in range(5000)) <= 5


class TestTaskMessage:
    def test_is_what_celery_itself_would_send(self):
        identity = new_id()
        ours = task_message(
            task="orders.persist_orders", queue="q", task_id=identity, kwargs={"orders": [1]}
        )
        theirs = Celery(set_as_current=False).amqp.as_task_v2(
            str(identity), "orders.persist_orders", (), {"orders": [1]}
        )

        assert msgspec.json.decode(ours.body) == msgspec.json.decode(
            msgspec.json.encode(theirs.body)
        )
        for name in ("lang", "task", "id", "root_id", "parent_id", "group"):
            assert ours.headers[name] == {"lang": "py", **theirs.headers}[name]
        assert ours.correlation_id == theirs.properties["correlation_id"]
        assert (ours.exchange, ours.routing_key) == ("", "q")


class TestTheSignOfLife:
    @pytest.fixture
    def ended(self, monkeypatch, tmp_path) -> Iterator[threading.Event]:
        """Set when the process would have ended; the sign is given meanwhile."""
        ended = threading.Event()
        takes_tasks = threading.Event()
        takes_tasks.set()
        monkeypatch.setenv("WORKER_ALIVE_FILE", str(tmp_path / "alive"))
        monkeypatch.setattr(bootsteps, "STUCK_SECONDS", 0.5)
        monkeypatch.setattr(bootsteps, "_end_at_once", ended.set)
        sign = bootsteps.SignOfLife([], takes_tasks, every_seconds=0.01)
        sign.start()
        yield ended
        sign.stop()
        sign.join(10)
        threads.end_step()

    @staticmethod
    def is_given(file: Path) -> bool:
        file.unlink(missing_ok=True)
        with suppress(AssertionError):
            eventually(file.exists, within_seconds=1)
        return file.exists()

    def test_is_given_by_who_waits_for_work_and_by_who_goes_on(self, ended, tmp_path):
        assert self.is_given(tmp_path / "alive")
        for _ in range(20):
            threads.begin_step()
            time.sleep(0.1)
        assert self.is_given(tmp_path / "alive")
        assert not ended.is_set()

    def test_is_not_given_by_who_is_stuck_who_ends_instead(self, ended, tmp_path):
        threads.begin_step()

        assert ended.wait(10)
        assert not self.is_given(tmp_path / "alive")
