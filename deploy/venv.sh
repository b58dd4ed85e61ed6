#!/usr/bin/env bash
# Makes the virtual environment that every `make` target runs in:
#   deploy/venv.sh DIRECTORY [SYSTEM_PYTHON]
#
# With LOOK_AT_PORTS, only if the ports of the services are free: what comes takes a minute.
# One that is there is kept, whatever made it. Otherwise PYTHON names the interpreter; without it,
# `python3` on PATH is taken, unless it was built without optimisation (as pyenv does by default)
# and the system's was not: such an interpreter needs about 1.3 times the CPU for a request.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
system=${2:-/usr/bin/python3}

fail() { echo "$*" >&2; exit 1; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }

# Debian's does not mention it in CONFIG_ARGS, and is: distributions optimise what is in /usr.
is_optimised() {
  "$1" -c 'import sys, sysconfig
args = sysconfig.get_config_var("CONFIG_ARGS") or ""
sys.exit(sys.base_prefix != "/usr" and "--enable-optimizations" not in args)'
}

# Whether an interpreter can make virtual environments, perhaps after some help.
can_make_venv() {
  "$1" -c 'import ensurepip, venv' 2> /dev/null && return
  # Debian keeps this part of Python in a package of its own.
  package="python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
  [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || return 1
  echo "  · installing $package"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"; } > /dev/null
}

make_venv() {
  local python=${PYTHON:-python3} why="it is the first python3 on PATH" package=
  [ -z "${PYTHON:-}" ] || why="PYTHON names it"
  command -v "$python" > /dev/null \
    || fail "There is no $python here: install Python 3.11 or newer, or name one with PYTHON=…"
  is_recent "$python" || fail "$("$python" --version) is too old: 3.11 or newer is needed. Name one with PYTHON=…"
  [ -z "${LOOK_AT_PORTS:-}" ] || "$python" -m deploy.native.ports || exit 1

  if [ -z "${PYTHON:-}" ] && ! is_optimised "$python"; then
    if [ -x "$system" ] && is_recent "$system" && is_optimised "$system" && can_make_venv "$system"; then
      why="an unoptimised interpreter, as python3 on PATH is, runs this about 1.3 times slower"
      python=$system
    else
      why="$why; it is unoptimised, and runs this about 1.3 times slower"
    fi
  fi
  can_make_venv "$python" || fail "$python cannot make virtual environments: install $package first."

  echo "  · $("$python" --version) from $(command -v "$python"): $why"
  # What an interrupted run has left is no virtual environment.
  "$python" -m venv --clear "$venv"
}

"$venv/bin/python" -c 'import pip' 2> /dev/null || make_venv
echo "  · installing the Python packages into $venv (once; again when requirements change)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt \
  || fail "The packages could not be installed; see above."
touch "$venv/.complete"
