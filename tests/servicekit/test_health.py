"""What is up, what is down, and what this makes of the service."""

import json
import threading
from collections.abc import Callable, Iterator

import pytest
from django.test import RequestFactory

from servicekit.http import health


def ask(view: Callable[..., object]) -> tuple[int, str, dict[str, str]]:
    answer = view(RequestFactory().get("/health/ready"))
    body = json.loads(answer.content)
    return answer.status_code, body["status"], body["checks"]


class TestReady:
    @pytest.mark.parametrize(
        ("needed", "spare", "answer"),
        [
            (True, True, (200, "ready", {"needed": "up", "spare": "up"})),
            (True, False, (200, "degraded", {"needed": "up", "spare": "down"})),
            (False, True, (503, "not_ready", {"needed": "down", "spare": "up"})),
            (False, False, (503, "not_ready", {"needed": "down", "spare": "down"})),
        ],
    )
    def test_is_what_the_service_can_do_with_what_is_up(self, needed, spare, answer):
        view = health.ready(
            {"needed": lambda: needed, "spare": lambda: spare}, works_with=lambda up: "needed" in up
        )

        assert ask(view) == answer

    def test_takes_a_check_that_breaks_for_a_no(self):
        view = health.ready({"spare": lambda: 1 / 0 > 0}, works_with=lambda _up: True)

        assert ask(view) == (200, "degraded", {"spare": "down"})

    def test_tells_details_to_those_who_ask(self):
        view = health.ready({}, works_with=lambda _up: True, details=lambda: ["a part"])

        told = [
            json.loads(view(RequestFactory().get(f"/health/ready{query}")).content).get("details")
            for query in ("", "?details", "?details=1")
        ]
        assert told == [None, ["a part"], ["a part"]]


class TestAHangingCheck:
    @pytest.fixture(autouse=True)
    def hanging(self) -> Iterator[None]:
        self.release = threading.Event()
        self.asked = 0

        def hang() -> bool:
            self.asked += 1
            return self.release.wait(60)

        self.view = health.ready(
            {"hanging": hang, "other": lambda: True}, works_with=lambda up: "other" in up
        )
        yield
        self.release.set()

    def test_is_down_and_keeps_neither_the_answer_nor_the_others_waiting(self):
        assert ask(self.view) == (200, "degraded", {"hanging": "down", "other": "up"})

    def test_is_not_asked_again_before_it_comes_back(self):
        ask(self.view)
        ask(self.view)
        assert self.asked == 1

        self.release.set()
        assert ask(self.view)[1] == "ready"
