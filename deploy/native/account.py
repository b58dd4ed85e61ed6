"""The system account that PostgreSQL runs as, where it cannot run as ours."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Tell whether this is the account that we run as."""
        return self.uid == os.geteuid()

    def can_enter(self, directory: Path) -> bool:
        """Tell whether this account may traverse a directory and all above it."""
        return self.run(["test", "-x", str(directory)]).returncode == 0

    def run(
        self, command: Sequence[str], environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this account, from the root directory, which everybody may enter."""
        as_somebody_else = not self.is_ours
        return subprocess.run(
            command,
            cwd="/",
            env=environment,
            user=self.uid if as_somebody_else else None,
            group=self.gid if as_somebody_else else None,
            extra_groups=[] if as_somebody_else else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def own(self, directory: Path) -> None:
        """Make a directory that only this account may look into."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.is_ours:
            os.chown(directory, self.uid, self.gid)


def for_postgres() -> Account:
    """Return the account to run PostgreSQL as: ours, unless we are root, which it refuses."""
    if os.geteuid() != 0:
        return _account(pwd.getpwuid(os.geteuid()))
    for name in ("postgres", "nobody"):
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            continue
    # Every Linux has the overflow user, with or without a name.
    return Account("65534", 65534, 65534)


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
