import os
import subprocess
import sys

import pytest

from deploy.settings import ROOT
from tools import check_coverage

PROGRAM = """
def try_this(call):
    try:
        call()
    except KeyError:
        print("reached")
    except ValueError:
        print("not reached")
    except TypeError:  # pragma: no cover - nobody does that
        print("cannot be reached")
    except OSError:  # pragma: no cover
        print("says not why")
    else:
        failpoint("a")
try_this(lambda: {}[1])
"""


class TestTheCheck:
    @pytest.mark.parametrize("floor", [10, 90])
    def test_names_what_was_never_executed(self, tmp_path, monkeypatch, capsys, floor):
        configuration = (ROOT / "pyproject.toml").read_text().partition("[tool.coverage.run]")
        tables = "".join(configuration[1:]).partition("[tool.importlinter]")[0]
        ours = tables.replace('"servicekit", ', '"shop", ').replace(
            "fail_under = ", f"fail_under = {floor} # "
        )
        (tmp_path / "pyproject.toml").write_text(ours)
        for package in ("shop", "products_project", "orders_project", "celery_workers"):
            (tmp_path / package).mkdir()
        (tmp_path / "shop" / "program.py").write_text(PROGRAM)
        # As the processes that tests start: nothing but a variable tells them.
        started = {**os.environ, "COVERAGE_PROCESS_START": str(tmp_path / "pyproject.toml")}
        command = [sys.executable, "shop/program.py"]
        subprocess.run(command, cwd=tmp_path, env=started, check=True)
        monkeypatch.setattr(check_coverage, "ROOT", tmp_path)
        monkeypatch.chdir(tmp_path)

        assert check_coverage.main() == 1
        complaints = capsys.readouterr().out.splitlines()[1:]
        assert complaints[:3] == [
            "shop/program.py:8: no test reaches this `except`",
            "shop/program.py:12: no test reaches this `except`",
            "shop/program.py:14: no test reaches this failpoint",
        ]
        assert len(complaints) == (3 if floor == 10 else 4)
