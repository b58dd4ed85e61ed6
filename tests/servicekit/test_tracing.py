"""Trace contexts by the letter of W3C, and the correlations that travel with messages."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from servicekit import correlation
from servicekit.correlation import Correlation
from servicekit.tracing import TraceContext

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{PARENT}-01"


class TestParse:
    def test_reads_what_the_specification_shows(self):
        context = TraceContext.parse(HEADER)

        assert context == TraceContext(TRACE, PARENT, 1)
        assert context.is_sampled
        assert str(context) == HEADER

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
    def test_refuses_what_it_does_not_allow(self, header):
        assert TraceContext.parse(header) is None

    @pytest.mark.parametrize("more", ["", "-", "-what-will-be"])
    def test_reads_of_a_later_version_what_it_knows_and_passes_it_on_as_its_own(self, more):
        context = TraceContext.parse(f"cc-{TRACE}-{PARENT}-03{more}")

        assert str(context) == HEADER

    def test_keeps_the_decision_not_to_record(self):
        context = TraceContext.parse(f"00-{TRACE}-{PARENT}-00")

        assert not context.is_sampled
        assert str(context.child()).endswith("-00")

    @given(st.text(max_size=80))
    @example(HEADER)
    def test_never_raises_and_never_changes_what_it_takes(self, text):
        context = TraceContext.parse(text)

        assert context is None or str(context)[3:52] == text[3:52]


class TestChild:
    def test_stays_in_the_trace_under_an_id_of_its_own(self):
        context = TraceContext.parse(HEADER)
        children = {context.child() for _ in range(100)}

        assert {child.trace_id for child in children} == {TRACE}
        assert len({child.parent_id for child in children} | {PARENT}) == 101

    def test_of_a_new_trace_can_be_parsed(self):
        context = TraceContext.new()

        assert TraceContext.parse(str(context)) == context
        assert TraceContext.parse(str(context.child())).trace_id == context.trace_id


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
