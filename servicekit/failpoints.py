"""Named places in the code where a fault test may make the worst happen.

`FAILPOINTS="orders.place.after_commit:kill,products.fill:sleep=2"` kills the process at the
first place and stalls it at the second. `kill=FILE` kills once: whoever removes that file dies of
it, and without the file nobody does. Without the variable a failpoint does nothing.
"""

import os
import signal
import time


class FailpointError(Exception):
    """Raised by a failpoint whose action is `raise`."""


def _parse(setting: str) -> dict[str, str]:
    pairs = (entry.split(":", 1) for entry in setting.split(",") if entry)
    return {name.strip(): action.strip() for name, action in pairs}


_ACTIONS = _parse(os.environ.get("FAILPOINTS", ""))


def failpoint(name: str) -> None:
    """Do what `FAILPOINTS` asks for at this place: `kill`, `kill=FILE`, `raise` or `sleep=SECONDS`.

    :raises FailpointError: if the action is `raise`
    :raises ValueError: if the action is none of the three
    """
    if not _ACTIONS or name not in _ACTIONS:
        return
    action, _, argument = _ACTIONS[name].partition("=")
    if action == "kill":
        if not argument or _is_removed(argument):
            os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise FailpointError(name)
    elif action == "sleep":
        time.sleep(float(argument))
    else:
        raise ValueError(f"FAILPOINTS: {name} has the unknown action {action!r}")


def _is_removed(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
