"""The ids of a request, from its headers into its answer and its log lines."""

import logging

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from servicekit import correlation
from servicekit.http.request_id import RequestId

TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADER = f"00-{TRACE}-b7ad6b7169203331-01"


class TestIdentity:
    @pytest.fixture(autouse=True)
    def application(self):
        """Return the ids under which a request with some headers is answered."""
        self.seen = []

        def answer(_request: object) -> HttpResponse:
            self.seen.append(correlation.current())
            return HttpResponse()

        self.identity = RequestId(answer)

    def ask(self, **headers: str):
        response = self.identity(RequestFactory().get("/", headers=headers))
        return response["X-Request-ID"], self.seen[-1]

    def test_takes_a_safe_request_id_and_returns_it(self):
        returned, seen = self.ask(**{"X-Request-ID": "Me_1.2-3"})

        assert returned == seen.request_id == "Me_1.2-3"

    @pytest.mark.parametrize("unsafe", ["", "a b", "a" * 65, "\xe4", "a\nb", "<script>", "a,b"])
    def test_makes_one_in_place_of_one_that_is_not(self, unsafe):
        returned, seen = self.ask(**{"X-Request-ID": unsafe})

        assert returned == seen.request_id != unsafe
        assert correlation.is_safe_request_id(returned)

    def test_stays_at_the_callers_place_in_the_trace(self):
        _, seen = self.ask(traceparent=HEADER)

        assert seen.traceparent == HEADER

    @pytest.mark.parametrize("malformed", ["", "00-nonsense", HEADER.upper(), f"{HEADER}-x"])
    def test_begins_a_trace_when_there_is_none_to_read(self, malformed):
        _, seen = self.ask(traceparent=malformed)

        assert correlation.known_traceparent(seen.traceparent)
        assert TRACE not in seen.traceparent

    def test_tells_every_request_apart(self):
        seen = [self.ask()[1] for _ in range(100)]

        assert len({each.request_id for each in seen}) == 100
        assert len({each.traceparent for each in seen}) == 100

    def test_is_over_with_the_request_even_if_it_breaks(self):
        def break_down(_request: object) -> HttpResponse:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            RequestId(break_down)(RequestFactory().get("/"))
        assert correlation.current() is None

    def test_is_logged_with_the_request_at_debug_only(self, caplog):
        with caplog.at_level(logging.INFO):
            self.ask()
        assert not caplog.records

        with caplog.at_level(logging.DEBUG):
            self.ask()
        assert [record.getMessage() for record in caplog.records] == ["GET /: 200"]
