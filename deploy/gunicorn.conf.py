"""gunicorn for both services; what differs between them is in the environment."""

import ctypes
import os
import signal
import sys
from pathlib import Path

worker_class = "gthread"
workers = int(os.environ.get("WEB_WORKERS") or 1)
threads = int(os.environ.get("WEB_THREADS") or 32)
preload_app = False

# Clients keep their connections: a handshake per order costs more than the order.
keepalive = 75
backlog = 2048

# A request is answered within 2 s whatever is down, so 5 s let everything finish.
graceful_timeout = 5
timeout = 30

# "auto" takes the C parser when it is installed, and the pure one when it is not.
http_parser = "auto"
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190

# Two services of one user would share the default path, and nobody asks it anything.
control_socket_disable = True

# The workers touch a file as their heartbeat. On a disk that is busy with somebody
# else's writes this can take longer than `timeout`, and a healthy worker is killed.
if Path("/dev/shm").is_dir():
    worker_tmp_dir = "/dev/shm"

accesslog = None
errorlog = "-"
loglevel = (os.environ.get("LOG_LEVEL") or "info").lower()


def post_fork(_server: object, _worker: object) -> None:
    """End this worker when its master is killed.

    An orphan would keep the port until it has noticed, and answer nobody: for seconds the next
    master could not start.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
