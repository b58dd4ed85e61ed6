"""Which interpreter `deploy/venv.sh` makes the virtual environment with."""

import os
import subprocess
from pathlib import Path

import pytest

from deploy.settings import ROOT

#: Answers what the script asks an interpreter, and makes environments that name their maker.
INTERPRETER = """#!/bin/sh
case "$*" in
    --version) echo "Python 3.11.9" ;;
    *version_info\\ *) {is_recent} ;;
    *enable-optimizations*) {is_optimised} ;;
    *ensurepip*) {has_ensurepip} ;;
    *%d.%d*) echo 3.11 ;;
    "-m venv --clear "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo "$0" > "$4/made-by" ;;
    "-m deploy.native.ports") echo "In use by other programs" >&2; exit 1 ;;
    "-m pip"*|*"import pip"*) ;;
    *) echo "not expected: $*" >&2; exit 64 ;;
esac
"""


class Machine:
    """Interpreters that are not there, on PATH and where the system has its own."""

    def __init__(self, directory: Path) -> None:
        self.on_path = directory / "path" / "python3"
        self.system = directory / "system" / "python3"
        self.venv = directory / "venv"
        self.on_path.parent.mkdir()
        self.system.parent.mkdir()
        # Nobody's administrator, so that no test installs anything.
        self._program(self.on_path.with_name("id"), "#!/bin/sh\necho 1000\n")

    def interpreter(self, place: Path, **answers: bool) -> None:
        known = {"is_recent": True, "is_optimised": True, "has_ensurepip": True, **answers}
        said = {name: str(answer).lower() for name, answer in known.items()}
        self._program(place, INTERPRETER.format(**said))

    def make_venv(self, **variables: str) -> str:
        done = subprocess.run(
            [ROOT / "deploy" / "venv.sh", self.venv, self.system],
            env={"PATH": f"{self.on_path.parent}:{os.environ['PATH']}", **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def made_by(self) -> Path:
        return Path((self.venv / "made-by").read_text().strip())

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class TestTheInterpreter:
    @pytest.mark.parametrize(
        ("on_path", "system", "chosen"),
        [
            ({}, {}, "on_path"),
            ({"is_optimised": False}, {}, "system"),
            ({"is_optimised": False}, {"is_recent": False}, "on_path"),
            ({"is_optimised": False}, {"is_optimised": False}, "on_path"),
            ({"is_optimised": False}, {"has_ensurepip": False}, "on_path"),
            ({"is_optimised": False}, None, "on_path"),
        ],
    )
    def test_is_the_first_on_path_unless_the_systems_is_faster(
        self, machine, on_path, system, chosen
    ):
        machine.interpreter(machine.on_path, **on_path)
        if system is not None:
            machine.interpreter(machine.system, **system)

        said = machine.make_venv()

        assert machine.made_by == getattr(machine, chosen)
        assert ("1.3 times slower" in said) == bool(on_path)

    def test_is_the_one_that_is_named(self, machine, tmp_path):
        machine.interpreter(machine.on_path)
        machine.interpreter(machine.system)
        machine.interpreter(tmp_path / "mine", is_optimised=False)

        machine.make_venv(PYTHON=str(tmp_path / "mine"))

        assert machine.made_by == tmp_path / "mine"

    def test_of_an_environment_that_is_there_is_kept(self, machine):
        machine.interpreter(machine.on_path)
        machine.make_venv()
        machine.interpreter(machine.system)

        machine.make_venv(PYTHON=str(machine.system))

        assert machine.made_by == machine.on_path

    def test_makes_nothing_where_ports_are_taken_that_it_looks_at(self, machine):
        machine.interpreter(machine.on_path)

        with pytest.raises(AssertionError, match="In use"):
            machine.make_venv(LOOK_AT_PORTS="up")

        assert not machine.venv.exists()
