"""What both ways to run the system have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

ADDRESSES = (
    "PRODUCTS_DATABASE_URL",
    "ORDERS_DATABASE_URL",
    "BROKER_URL",
    "CACHE_URL",
    "PRODUCT_API_URL",
    "ORDER_API_URL",
)
"""What `make env` prints, and what the tools that look at a running system are given."""


class Engine(ABC):
    """Runs the system. Every verb of `make` means the same with each engine."""

    @property
    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """The addresses of the running system, as seen from this machine."""

    @property
    @abstractmethod
    def management_url(self) -> str:
        """RabbitMQ's console, for a browser."""

    @property
    @abstractmethod
    def pids(self) -> Mapping[str, int]:
        """The process ids by name, of what runs as a process of this machine."""

    @abstractmethod
    def is_up(self) -> bool:
        """Tell whether everything runs and is ready."""

    @abstractmethod
    def up(self) -> None:
        """Bring up what is not up, or not of this version, and return when all is ready.

        :raises DeployFailure: if something cannot be brought up
        """

    @abstractmethod
    def down(self) -> None:
        """Stop everything; the data stays."""

    @abstractmethod
    def clean(self) -> None:
        """Stop everything and throw its data away."""

    @abstractmethod
    def ps(self) -> None:
        """Print what runs."""

    @abstractmethod
    def logs(self, *, follow: bool, names: Sequence[str]) -> None:
        """Print what the processes said, and go on printing if asked to."""
