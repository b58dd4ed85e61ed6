"""What supervisord is told about one program."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Program:
    """A process that is started again whenever it ends, and how to tell that it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    #: True once it does its work; asked again and again, so it must be cheap.
    is_ready: Callable[[], bool]
    address: str = ""
    user: str | None = None
    stop_signal: str = "TERM"
    #: Signal the whole process group, for a program whose children would outlive it.
    stop_as_group: bool = False
    #: Removed before each start by us, because it would speak of the run before.
    stale_files: Sequence[Path] = field(default_factory=tuple)
