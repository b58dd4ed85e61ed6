"""A private PostgreSQL with a database per service, and two roles for each."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.failure import DeployFailure
from deploy.native.account import Account
from deploy.native.programs import Program
from deploy.settings import ROOT

SUPERUSER = "postgres"
_SHARED_CONFIGURATION = ROOT / "deploy" / "postgres" / "postgresql.conf"
_CREATE_DATABASES = ROOT / "deploy" / "postgres" / "create-databases.sh"


def binaries(version: str | None = None) -> Path | None:
    """Return the directory that holds PostgreSQL's programs: this version's, or the newest."""
    installed = {
        directory.parent.name: directory
        for directory in Path("/usr/lib/postgresql").glob("*/bin")
        if (directory / "initdb").exists()
    }
    on_path = shutil.which("initdb")
    if on_path is not None:
        directory = Path(on_path).resolve().parent
        installed.setdefault(_version_of(directory), directory)
    if version is not None:
        return installed.get(version)
    newest = max(installed, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], default="")
    return installed.get(newest)


def _version_of(directory: Path) -> str:
    output = subprocess.run(
        [directory / "initdb", "--version"], capture_output=True, text=True, check=False
    ).stdout
    number = re.search(r"\d+", output)
    return number.group() if number else "0"


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """One PostgreSQL server: its data below `directory`, listening on 127.0.0.1."""

    directory: Path
    port: int
    account: Account
    superuser_password: str

    @property
    def data(self) -> Path:
        """The data directory; PostgreSQL also works in it, which tells its processes apart."""
        return self.directory / "data"

    def prepare(self) -> None:
        """Make the data directory, once, and its configuration, each time.

        :raises DeployFailure: if PostgreSQL refuses, or is of another version than the data
        """
        self.account.own(self.directory)
        if not self.data.exists():
            self._initialise()
        configuration = _SHARED_CONFIGURATION.read_text() + "\n".join(
            (
                "",
                "# Chosen for this machine.",
                "listen_addresses = '127.0.0.1'",
                f"port = {self.port}",
                # Nobody connects that way, and the path would have to be short.
                "unix_socket_directories = ''",
                "",
            )
        )
        (self.data / "postgresql.conf").write_text(configuration)

    def program(self) -> Program:
        """Describe the server to supervisord."""
        return Program(
            name="postgres",
            command=(str(self._bin() / "postgres"), "-D", str(self.data)),
            environment={"HOME": str(self.directory)},
            directory=Path("/"),
            is_ready=self._is_ready,
            address=f"127.0.0.1:{self.port}",
            user=None if self.account.is_ours else self.account.name,
            # INT is PostgreSQL's "fast" shutdown: TERM would wait for every client to leave.
            stop_signal="INT",
        )

    def create_databases(self, passwords: Mapping[str, str]) -> None:
        """Create the roles and databases that are missing; passwords by their names in `.env`.

        :raises DeployFailure: if PostgreSQL refuses
        """
        done = subprocess.run(
            ["bash", str(_CREATE_DATABASES)],
            env={
                **passwords,
                "PATH": f"{self._bin()}:/usr/bin:/bin",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": SUPERUSER,
                "PGPASSWORD": self.superuser_password,
                "PGCONNECT_TIMEOUT": "5",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DeployFailure(
                f"PostgreSQL refused to create the databases: {done.stderr.strip()}"
            )

    def _initialise(self) -> None:
        # Under another name first: an initdb that was interrupted leaves half a
        # cluster, which looks like a whole one to the next start.
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password_file = self.directory / "password"
        password_file.touch(mode=0o644)
        password_file.write_text(self.superuser_password)
        try:
            made = self.account.run(
                [
                    str(self._bin() / "initdb"),
                    f"--pgdata={fresh}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--data-checksums",
                ],
                environment={"PATH": "/usr/bin:/bin", "HOME": str(self.directory)},
            )
        finally:
            password_file.unlink()
        if made.returncode != 0:
            raise DeployFailure(f"PostgreSQL could not create its data: {made.stderr.strip()}")
        fresh.rename(self.data)

    def _bin(self) -> Path:
        version_file = self.data / "PG_VERSION"
        version = version_file.read_text().strip() if version_file.exists() else None
        directory = binaries(version)
        if directory is None:
            raise DeployFailure(
                f"The data in {self.data} needs PostgreSQL {version}, which is not installed; "
                "install it, or throw the data away with `make clean`."
            )
        return directory

    def _is_ready(self) -> bool:
        probe = [str(self._bin() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(probe, check=False).returncode == 0
