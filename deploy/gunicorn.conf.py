"""gunicorn for both services; what differs between them is in the environment."""

import ctypes
import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger

from servicekit import logs

worker_class = "servicekit.http.server.HttpWorker"
# Two cores are kept busy by one process and what stands behind it; two would share the orders out
# between them, and make smaller batches.
workers = int(os.environ.get("WEB_WORKERS") or max(1, min(4, (os.cpu_count() or 1) // 2)))
# Of one worker; a connection costs a greenlet. What comes beyond waits in the backlog.
worker_connections = int(os.environ.get("WEB_CONNECTIONS") or 1000)
preload_app = False

# Clients keep their connections: a handshake per order costs more than the order.
keepalive = 75
backlog = 2048

# A request is answered within 2 s whatever is down, and 1 s after the end has begun there are no
# more of them.
graceful_timeout = 3
timeout = 30

# Two services of one user would share the default path, and nobody asks it anything.
control_socket_disable = True

# The workers touch a file as their heartbeat. On a disk that is busy with somebody
# else's writes this can take longer than `timeout`, and a healthy worker is killed.
_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
if _memory:
    worker_tmp_dir = _memory

# The workers count in files that all of them can read; in memory, for the same reason.
_metrics = Path(
    os.environ.setdefault(
        "PROMETHEUS_MULTIPROC_DIR",
        str(Path(_memory or tempfile.gettempdir()) / f"shop-metrics-{os.getpid()}"),
    )
)

accesslog = None
errorlog = "-"
loglevel = (os.environ.get("LOG_LEVEL") or "info").lower()


class LineLogger(Logger):  # type: ignore[misc]  # gunicorn publishes no types
    """Writes gunicorn's own lines as the services write theirs."""

    # Not `logconfig_dict`: with it, gunicorn puts an access line together for every request.

    def setup(self, cfg: Config) -> None:
        """Set up gunicorn's handlers, with our formatter."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(logs.line_formatter(os.environ.get("LOG_FORMAT") or "text"))


logger_class = LineLogger


def on_starting(_server: object) -> None:
    """Begin counting at nothing: the files of an earlier master are no processes of ours."""
    shutil.rmtree(_metrics, ignore_errors=True)
    _metrics.parent.mkdir(parents=True, exist_ok=True)
    # Fails if there is one that we could not remove: somebody else's, who could read along.
    _metrics.mkdir(mode=0o700)


def on_exit(_server: object) -> None:
    """Leave nothing in memory."""
    shutil.rmtree(_metrics, ignore_errors=True)


def child_exit(_server: object, worker: Any) -> None:
    """Forget what a dead worker held at the moment; what it has counted stays counted."""
    # Not above: at its import it looks for the directory once and for all.
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def post_fork(_server: object, _worker: object) -> None:
    """End this worker when its master is killed.

    An orphan would keep the port until it has noticed, and answer nobody: for seconds the next
    master could not start.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


# The ages of the workers that take the places of others.
_successors: list[int] = []


def on_reload(server: Any) -> None:
    """Keep the workers of before until those of now are ready, which takes them seconds."""
    _successors[:] = range(server.worker_age + 1, server.worker_age + 1 + server.cfg.workers)
    server.num_workers += server.cfg.workers


def post_worker_init(worker: Any) -> None:
    """Be ready to serve."""
    # Not above: they need Django's settings, which are there with the application.
    from servicekit.caching.redis import invalidate_outdated  # noqa: PLC0415
    from servicekit.database.loop import Loop  # noqa: PLC0415

    # Also in a service that nobody asks anything else that needs Redis.
    Loop("cache invalidation", invalidate_outdated).start()
    # What is loaded by now stays: the collector need not look at it, nor as often as by default.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    if worker.age in _successors:
        # One worker less: the oldest is asked to end.
        os.kill(worker.ppid, signal.SIGTTOU)
