"""Trace contexts by the letter of W3C, and the correlations that travel with messages."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from servicekit import correlation
from servicekit.correlation import Correlation, known_traceparent, new_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{PARENT}-01"


class TestKnownTraceparent:
    @pytest.mark.parametrize("flags", ["00", "01"])
    def test_passes_on_what_the_specification_shows(self, flags):
        assert known_traceparent(HEADER[:-2] + flags) == HEADER[:-2] + flags

    @pytest.mark.parametrize(
        "header",
        [
            None, 7, b"", "", "00", HEADER.upper(), f" {HEADER}", f"{HEADER} ", f"{HEADER}\n",
            f"ff-{TRACE}-{PARENT}-01",  # a version that never is
            f"0-{TRACE}-{PARENT}-01",
            f"00-{'0' * 32}-{PARENT}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE[:-1]}-{PARENT}-01",
            f"00-{TRACE}0-{PARENT}-01",
            f"00-{TRACE}-{PARENT}-1",
            f"00-{TRACE}-{PARENT}-0g",
            f"00-{TRACE}-{PARENT}",
            f"{HEADER}-more",  # version 00 has no more
            f"01-{TRACE}-{PARENT}-01more",
            f"{HEADER},{HEADER}",  # two headers, as WSGI joins them
            f"00-{TRACE}-{PARENT}-\u0661\u0661",  # digits, but not of ours
            f"01-{TRACE}-{PARENT}-01-{'x' * 600}",
        ],
    )  # fmt: skip
    def test_is_nothing_for_what_it_does_not_allow(self, header):
        assert known_traceparent(header) == ""

    @pytest.mark.parametrize("more", ["", "-", "-what-will-be"])
    def test_passes_on_of_a_later_version_what_it_knows(self, more):
        assert known_traceparent(f"cc-{TRACE}-{PARENT}-03{more}") == HEADER

    @given(st.text(max_size=80))
    @example(HEADER)
    def test_never_raises_and_never_changes_what_it_takes(self, text):
        known = known_traceparent(text)

        assert known == "" or known[3:53] == text[3:53]


class TestNewTraceparent:
    def test_is_another_each_time_and_one_that_can_be_passed_on(self):
        made = {new_traceparent() for _ in range(100)}

        assert len({each[:36] for each in made}) == len({each[36:] for each in made}) == 100
        assert {known_traceparent(each) for each in made} == made


class TestCorrelationOfHeaders:
    def test_takes_what_is_well_formed(self):
        headers = {"request_id": "me-1", "traceparent": HEADER, "x-more": object()}

        assert Correlation.of_headers(headers) == Correlation("me-1", HEADER)
        assert Correlation.of_headers(headers).headers == {
            "request_id": "me-1",
            "traceparent": HEADER,
        }

    @pytest.mark.parametrize(
        "request_id", [None, "", 7, b"me", "a b", "a\nb", "\xe4", "a" * 65, {"a": 1}, "me\n"]
    )
    def test_leaves_out_what_is_not(self, request_id):
        headers = {"request_id": request_id, "traceparent": HEADER}

        assert Correlation.of_headers(headers) == Correlation("", HEADER)

    @pytest.mark.parametrize("headers", [None, {}, [], "headers", {"traceparent": "00-nonsense"}])
    def test_is_none_when_there_is_nothing(self, headers):
        assert Correlation.of_headers(headers) is None


class TestOfRequest:
    def test_is_what_is_answered_in_here_and_nowhere_else(self):
        outer, inner = Correlation("outer", HEADER), Correlation("inner")
        with correlation.of_request(outer):
            assert correlation.headers() == {"request_id": "outer", "traceparent": HEADER}
            with correlation.of_request(inner):
                assert correlation.current() == inner
                assert correlation.headers() == {"request_id": "inner"}
            assert correlation.current() == outer

        assert correlation.current() is None
        assert correlation.headers() == {}
