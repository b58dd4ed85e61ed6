"""A Django view that does nothing, under the same server: what there is to compare with."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django import urls
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse

from deploy.failure import DeployFailure
from deploy.native.ports import Ports, answers
from deploy.native.programs import DEFAULTS, native_command
from deploy.native.supervision import wait_until
from deploy.processes import SERVICES
from deploy.settings import ROOT

#: As long as the answer to an order.
_BODY = (
    b'{"id":"01a20803-6896-7428-8f88-dfb6efaec66d","productId":"01a20803-685f-7694-9a7e-51202fb72a4a"'
    b',"quantity":1,"totalPrice":100,"status":"PENDING","createdAt":"2026-11-23T10:46:10.838Z"}'
)


def _answer(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(_BODY, content_type="application/json")


urlpatterns = [urls.path("", _answer)]


def application() -> WSGIHandler:
    """Make the application: one view and no middleware."""
    settings.configure(ROOT_URLCONF=__name__, MIDDLEWARE=[], ALLOWED_HOSTS=["127.0.0.1"])
    return get_wsgi_application()


@contextmanager
def bare_view(service: str) -> Iterator[tuple[str, int]]:
    """Serve it as a service is served, with as many processes; yield its URL and process id.

    :raises DeployFailure: if it does not start
    """
    process = next(process for process in SERVICES if process.name == service)
    port = Ports.free().product
    *command, _ = native_command(process, f"127.0.0.1:{port}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "LOG_LEVEL": "WARNING"}
    server = subprocess.Popen(
        [*command, "tools.bench.bare:application()"],
        cwd=ROOT,
        env={**os.environ, **DEFAULTS, **own},
        start_new_session=True,
    )
    try:
        if not wait_until(lambda: answers("127.0.0.1", port), timeout_seconds=10):
            raise DeployFailure(f"The bare view does not answer on port {port}.")
        yield f"http://127.0.0.1:{port}/", server.pid
    finally:
        server.terminate()
        server.wait()
