#!/usr/bin/env python
"""Django's command line for the product service."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command with the repository as the only import root."""
    root = str(Path(__file__).resolve().parent.parent)
    sys.path = [root, *(entry for entry in sys.path if entry != str(Path(__file__).parent))]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "products_project.config.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError as error:  # pragma: no cover - without packages nobody counts
        raise SystemExit(
            f"{error}: use {root}/.venv/bin/python, which `make up` has made"
        ) from error

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
