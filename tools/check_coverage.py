"""Refuses a way back from a failure that no test has gone: the end of `make coverage`.

Fails when the tests, and the processes that they have started, have reached fewer of the lines than
`fail_under` in pyproject.toml asks for, or have never executed an `except` or a failpoint. What
cannot be reached says so, and why, behind its `except`: `# pragma: no cover - reason`.
"""

import ast
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from coverage import Coverage

from deploy.settings import ROOT


def main() -> int:
    """Say what was not reached; return 1 if there is any such thing."""
    coverage = Coverage(config_file=str(ROOT / "pyproject.toml"))
    coverage.combine(strict=True, keep=True)
    percent = coverage.report(file=io.StringIO())
    floor = cast("float", coverage.get_option("report:fail_under"))
    wrong = list(_unreached(coverage))
    if percent < floor:
        wrong.append(f"not even {floor:.0f} % of the lines were reached (`coverage report -m`)")
    print("\n".join([f"{percent:.1f} % of the lines were reached", *wrong]))
    return int(bool(wrong))


def _unreached(coverage: Coverage) -> Iterator[str]:
    for package in cast("list[str]", coverage.get_option("run:source")):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                missing = coverage.analysis2(str(path))[3]
                for line, what in _places(path):
                    if line in missing:
                        yield f"{path.relative_to(ROOT)}:{line}: no test reaches this {what}"


def _places(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ExceptHandler):
            yield node.body[0].lineno, "`except`"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
            yield node.lineno, "failpoint"


if __name__ == "__main__":
    sys.exit(main())
