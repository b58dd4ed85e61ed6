"""What processes are started from, as a digest: it tells whether that has changed since."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from deploy.settings import ROOT

#: What the servers read when they start.
SERVER_SOURCES = tuple(ROOT / "deploy" / name for name in ("postgres", "redis", "rabbitmq"))

#: What the services, the workers and the migrations are made of.
SERVICE_SOURCES = (
    *(
        ROOT / name
        for name in ("celery_workers", "orders_project", "products_project", "servicekit")
    ),
    ROOT / "deploy" / "broker.py",
    ROOT / "deploy" / "gunicorn.conf.py",
    ROOT / "requirements" / "runtime.txt",
    ROOT / "requirements" / "telemetry.txt",
)


def fingerprint(sources: Iterable[Path], *settings: object) -> str:
    """Return the digest of settings, of the interpreter, and of files and directories."""
    digest = hashlib.sha256(repr((sys.version, settings)).encode())
    for source in sources:
        for file in sorted([source, *source.rglob("*")]):
            # Bytecode and editors' files come and go without a change of the code.
            if file.is_file() and file.suffix != ".pyc" and not file.name.startswith("."):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{file.relative_to(source)} {content}\n".encode())
    return digest.hexdigest()
