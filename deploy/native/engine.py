"""The system natively on this machine, in `.run/`."""

import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta

from deploy.console import Progress, table
from deploy.failure import DeployFailure
from deploy.native.stack import Stack
from deploy.settings import ROOT

RUN_DIR = ROOT / ".run" / "system"

_LINES = 100


class NativeEngine(Stack):
    """The one stack of this checkout, as `make` speaks of it."""

    def __init__(self, settings: Mapping[str, str], progress: Progress) -> None:
        super().__init__(RUN_DIR, settings=settings, progress=progress)

    def up(self) -> None:
        """Start what does not run, and start again what runs from other code or settings."""
        if self.is_up() and self.is_current():
            print("\nThe system is up already.")
        else:
            super().up()

    def down(self) -> None:
        """Stop every process."""
        self.stop()

    def clean(self) -> None:
        """Stop every process and remove `.run/system`."""
        self.remove()

    def ps(self) -> None:
        """Print every process with its state."""
        rows = [["NAME", "STATE", "PID", "UPTIME", "ADDRESS"]]
        for each in self.status():
            pid = str(each.pid) if each.pid else "-"
            uptime = str(timedelta(seconds=each.uptime_seconds)) if each.uptime_seconds else "-"
            rows.append([each.name, each.state.lower(), pid, uptime, each.address or "-"])
        print(table(rows))

    def logs(self, *, follow: bool, names: Sequence[str]) -> None:
        """Print the last lines of every log.

        :raises DeployFailure: if a name is none of the processes
        """
        known = [each.name for each in self.status()]
        if unknown := set(names) - set(known):
            raise DeployFailure(
                f"There is no process {min(unknown)!r}; there are {', '.join(known)}."
            )
        paths = [self.log_path(name) for name in names or known]
        paths = [path for path in paths if path.exists()]
        if follow and paths:
            tail = ["tail", "-n", str(_LINES // 5), "-F", *map(str, paths)]
            subprocess.run(tail, check=False)
            return
        for path in paths:
            print(f"==> {path.stem} <==")
            with path.open(errors="replace") as log:
                sys.stdout.writelines(deque(log, maxlen=_LINES))
            print()
