"""Log lines: one event, one line, in either format, whatever a stranger put into it."""

import json
import logging
import sys

import pytest

from servicekit import correlation, logs
from servicekit.correlation import Correlation

FORGERIES = ["a\nb", "a\r\nb", "a\x1b[31mb", "a\x00b", "a\u2028b", "a\x85b", "a\x7fb"]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def line(log_format: str, message: str, *args: object, error: bool = False, **extra: object) -> str:
    record = logging.LogRecord(
        "shop", logging.WARNING, "", 0, message, args, sys.exc_info() if error else None
    )
    record.__dict__.update(extra)
    return logs.line_formatter(log_format).format(record)


def fail(text: str) -> None:
    raise ValueError(text)


def traceback_of(text: str, log_format: str) -> str:
    try:
        fail(text)
    except ValueError:
        return line(log_format, "it broke", error=True)


class TestText:
    def test_says_time_level_logger_message_and_what_it_is_about(self):
        text = line("text", "took %d", 7, order_id="42")

        assert text.endswith("WARNING shop: took 7 order_id=42")
        assert text[:2] == "20"

    @pytest.mark.parametrize("forged", FORGERIES)
    def test_keeps_a_message_on_its_line(self, forged):
        of_arguments = line("text", "%s", forged), line("text", "", queue=forged)
        for text in (line("text", forged), *of_arguments):
            assert text.isprintable()
            assert len(text.splitlines()) == 1

    @pytest.mark.parametrize("forged", FORGERIES)
    def test_shows_a_traceback_that_cannot_be_taken_for_lines_of_their_own(self, forged):
        first, *others = traceback_of(f"x\n2026-11-23 INFO {forged}", "text").splitlines()

        assert first.endswith("it broke")
        assert others
        assert all(other.startswith("    | ") for other in others)


class TestJson:
    def test_is_an_object_of_what_there_is_to_say(self):
        document = json.loads(line("json", "took %d", 7, order_id="42"))

        assert document.pop("time").endswith("Z")
        assert document == {
            "level": "warning", "logger": "shop", "message": "took 7", "order_id": "42",
        }  # fmt: skip

    @pytest.mark.parametrize("forged", FORGERIES)
    def test_keeps_everything_on_its_line_and_loses_nothing_of_it(self, forged):
        text = line("json", forged, queue=forged)

        assert text.isprintable()
        assert len(text.splitlines()) == 1
        assert (json.loads(text)["message"], json.loads(text)["queue"]) == (forged, forged)

    def test_has_a_traceback_inside(self):
        text = traceback_of("x\ny", "json")

        assert len(text.splitlines()) == 1
        assert json.loads(text)["exception"].endswith("ValueError: x\ny")


class TestEitherFormat:
    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_says_which_request_it_is_about(self, log_format):
        with correlation.of_request(Correlation("me-1", f"00-{TRACE}-b7ad6b7169203331-01")):
            text = line(log_format, "hello")

        assert "me-1" in text
        assert TRACE in text

    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_leaves_out_what_libraries_hand_over(self, log_format):
        assert "secret" not in line(log_format, "hello", request="secret", data="secret")

    def test_is_one_of_the_two(self):
        with pytest.raises(ValueError, match="LOG_FORMAT"):
            logs.line_formatter("xml")
