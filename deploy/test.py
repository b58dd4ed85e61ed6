"""`make test`: every test, on real servers of its own.

PostgreSQL, Redis and RabbitMQ are started on free ports in a directory of their own, and are
gone afterwards. The tests of each service run with its settings; those of the whole system start
whole systems by themselves, look at their pages with Chromium, and exchange messages with them from
Node and Go where those are installed. They wait more than they work, and run beside the others.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from deploy.console import TerminalProgress
from deploy.failure import DeployFailure
from deploy.native.install import ensure_installed
from deploy.native.ports import Ports
from deploy.native.stack import Stack
from deploy.settings import ROOT

# A process has the settings of one service.
_SUITES = (
    ("tests/deploy", "tests/tools", "tests/servicekit", "tests/products"),
    ("tests/orders",),
)
_WHOLE_SYSTEM = ("tests/system", "tests/interop")

# pytest's exit code where nothing was selected.
_NO_TESTS = 5


def main(arguments: Sequence[str]) -> int:
    """Run the suites in turn, with the given pytest arguments; return 0 if all pass."""
    progress = TerminalProgress()
    stack = Stack(ROOT / ".run" / f"test-{os.getpid()}", Ports.free(), progress=progress)
    codes = set()
    try:
        stack.start_servers()
        try:
            ensure_installed(["chromium"], progress)
        except DeployFailure as failure:
            # Those tests are skipped and say so; all others need none.
            progress.note(str(failure))
        environment = {**os.environ, **stack.environment}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        with (
            tempfile.TemporaryFile("w+") as output,
            _pytest(
                _WHOLE_SYSTEM, arguments, environment, stdout=output, stderr=subprocess.STDOUT
            ) as whole_system,
        ):
            for paths in _SUITES:
                print(f"\n$ pytest {' '.join([*paths, *arguments])}", flush=True)
                codes.add(_pytest(paths, arguments, environment).wait())
            codes.add(whole_system.wait())
            output.seek(0)
            print(f"\n$ pytest {' '.join([*_WHOLE_SYSTEM, *arguments])}\n{output.read()}")
    except DeployFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        stack.remove()
    # Where only some are wanted, a suite may have none of them; not all suites.
    return int(codes == {_NO_TESTS} or not codes <= {0, _NO_TESTS})


def _pytest(
    paths: Sequence[str], arguments: Sequence[str], environment: dict[str, str], **streams: Any
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", *paths, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
