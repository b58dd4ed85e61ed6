"""What a stranger may send instead of a valid body, for the tests of both services."""

import gzip
from typing import Any

import pytest


def cases(table: dict[str, Any]) -> Any:
    """Try each, by its name."""
    return pytest.mark.parametrize("sent", table.values(), ids=table.keys())


NOT_AN_OBJECT = {
    "empty": b"",
    "blank": b"   ",
    "null": b"null",
    "a list": b"[]",
    "a list of objects": b'[{"qty": 1}]',
    "a string": b'"lamp"',
    "a number": b"1",
    "true": b"true",
}

MALFORMED = {
    "not JSON": b"hello",
    "cut off": b'{"qty": 1',
    "two values": b"{} {}",
    "a trailing comma": b'{"qty": 1,}',
    "single quotes": b"{'qty': 1}",
    "a comment": b'{"qty": 1} // one',
    "a name twice": b'{"qty": 1, "qty": 1}',
    "a form": b"qty=1",
    "compressed": gzip.compress(b'{"qty": 1}', mtime=0),
    "a byte order mark": b'\xef\xbb\xbf{"qty": 1}',
    "UTF-16": '{"qty": 1}'.encode("utf-16"),
    "bad UTF-8": b'{"name": "\xff\xfe"}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "a lone low surrogate": b'{"name": "\\udc00 lamp"}',
    "a control character": b'{"name": "a\x01b"}',
    "nested thousands deep": b'{"name":' * 5000 + b"1" + b"}" * 5000,
    "lists nested thousands deep": b"[" * 30_000 + b"]" * 30_000,
    "a bracket thousands of times": b"[" * 60_000,
}

NOT_AN_INTEGER = {
    "missing": None,
    "null": b"null",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "beyond a float": b"1e400",
    "a fraction": b"1.5",
    "a whole fraction": b"2.0",
    "an exponent": b"1e3",
    "a string": b'"5"',
    "an empty string": b'""',
    "a padded string": b'" 2 "',
    "underscores in a string": b'"1_000"',
    "underscores": b"1_000",
    "foreign digits": '"٣"'.encode(),
    "bare foreign digits": "٣".encode(),
    "true": b"true",
    "false": b"false",
    "a list": b"[1]",
    "an object": b'{"value": 1}',
    "hexadecimal": b"0x10",
    "a leading zero": b"01",
    "a plus sign": b"+1",
    "2 to the 63rd": str(2**63).encode(),
    "2 to the 64th": str(2**64).encode(),
    "thousands of digits": b"9" * 5000,
    "thousands of digits below zero": b"-" + b"9" * 5000,
    "thousands of decimals": b"1." + b"3" * 5000,
}

BAD_PAGES = {
    "limit of zero": "limit=0",
    "negative limit": "limit=-1",
    "limit too large": "limit=501",
    "limit of words": "limit=many",
    "empty limit": "limit=",
    "fractional limit": "limit=1.5",
    "limit with underscores": "limit=1_0",
    "limit in foreign digits": "limit=%D9%A3",
    "padded limit": "limit=%2010",
    "limit of thousands of digits": "limit=" + "9" * 3000,
    "empty cursor": "cursor=",
    "cursor of words": "cursor=hello",
    "cursor too short": "cursor=AAAA",
    "cursor too long": "cursor=" + "A" * 44,
    "cursor in foreign letters": "cursor=%C3%A9",
    "cursor with NUL": "cursor=%00",
    "cursor between nonsense": "cursor=!!!AZqvTQzHY-!!!Q2ivE0m4_w12!!!",
}
