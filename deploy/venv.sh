#!/usr/bin/env bash
# Makes the virtual environment that every `make` target runs in: deploy/venv.sh DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
python=${PYTHON:-python3}

fail() { echo "$*" >&2; exit 1; }

command -v "$python" > /dev/null || fail "There is no $python here: install Python 3.11 or newer, or name one with PYTHON=…"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || fail "$("$python" --version) is too old: 3.11 or newer is needed. Name one with PYTHON=…"

if ! "$python" -c 'import ensurepip, venv' 2> /dev/null; then
  # Debian keeps this part of Python in a package of its own.
  package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
  if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
    echo "  · installing $package"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"; } > /dev/null \
      || fail "$package could not be installed."
  else
    fail "$python cannot make virtual environments: install $package first."
  fi
fi

echo "  · installing the Python packages into $venv (once; again when requirements change)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt \
  || fail "The packages could not be installed; see above."
touch "$venv/.complete"
