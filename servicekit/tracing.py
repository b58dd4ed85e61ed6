"""W3C Trace Context (www.w3.org/TR/trace-context): which trace something belongs to."""

import random
import re
from typing import NamedTuple

_VERSION = "00"
_SAMPLED = 0x01
# Version 00 is exactly this; what a later version adds comes after another hyphen (section 4.3).
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)
_MAX_LENGTH = 512
"""Of a header of a later version; ours are 55 characters."""


class TraceContext(NamedTuple):
    """A place in a trace: its id, the id of the work that is the parent there, and its flags."""

    trace_id: str
    parent_id: str
    flags: int

    @classmethod
    def new(cls) -> "TraceContext":
        """Return the root of a new trace; nobody has decided against recording it."""
        return cls(_random_hex(128), _random_hex(64), _SAMPLED)

    @classmethod
    def parse(cls, header: object) -> "TraceContext | None":
        """Read a `traceparent`; None for anything that the specification does not allow."""
        if not isinstance(header, str) or len(header) > _MAX_LENGTH:
            return None
        match = _TRACEPARENT.fullmatch(header)
        if match is None:
            return None
        version, trace_id, parent_id, flags, more = match.groups()
        if version == "ff" or (version == _VERSION and more):
            return None
        if not trace_id.strip("0") or not parent_id.strip("0"):
            return None
        # Of the flags we pass on the one we know, as of a later version we may not more.
        return cls(trace_id, parent_id, int(flags, 16) & _SAMPLED)

    @property
    def is_sampled(self) -> bool:
        """Whether whoever is before us may have recorded it."""
        return bool(self.flags & _SAMPLED)

    def child(self) -> "TraceContext":
        """Return the same trace, with work of ours as the parent of what comes after."""
        return self._replace(parent_id=_random_hex(64))

    def __str__(self) -> str:
        return f"{_VERSION}-{self.trace_id}-{self.parent_id}-{self.flags:02x}"


def _random_hex(bits: int) -> str:
    # Not a secret, and a tenth of the cost of one. Never 0, which would be no id.
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"
