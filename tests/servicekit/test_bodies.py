"""Bodies that nobody asked for."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from servicekit.http.bodies import BodyReader


class Answer:
    """A body that remembers whether it was closed, as Django's responses must be."""

    def __init__(self) -> None:
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b"hello"

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def answer() -> Answer:
    return Answer()


def call(answer: Answer, method: str, body: bytes = b"") -> tuple[Iterable[bytes], io.BytesIO]:
    stream = io.BytesIO(body)

    def application(_environ: dict[str, Any], _start_response: Any) -> Any:
        return answer

    environ = {"REQUEST_METHOD": method, "wsgi.input": stream, "CONTENT_LENGTH": str(len(body))}
    return BodyReader(application)(environ, None), stream


class TestBodyReader:
    def test_reads_what_no_view_has_read(self, answer):
        body, stream = call(answer, "POST", b"x" * 1000)

        assert stream.read() == b""
        assert b"".join(body) == b"hello"
        assert not answer.is_closed

    def test_gives_head_no_body_and_ends_the_request(self, answer):
        body, _ = call(answer, "HEAD")

        assert b"".join(body) == b""
        assert answer.is_closed
