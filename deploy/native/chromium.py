"""The browser that looks at the pages: Debian's Chromium, or one that `CHROMIUM` names."""

import os
import shutil

#: Everything that it opens is our own, and containers seldom allow a sandbox, a GPU, or much
#: shared memory.
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def binary() -> str | None:
    """Return where it is, or None if it is not installed."""
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)
