"""What a service says of itself on its pages."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service, and the other one, which is beside it on the same host."""

    name: str
    port: int
    peer_name: str
    peer_port: int
    pages: Mapping[str, str] = field(default_factory=dict)
    """Where something is, by the member of an answer that holds its id: `productId`."""
    pages_of_peer: Mapping[str, str] = field(default_factory=dict)
    """The same for what the other service has."""
