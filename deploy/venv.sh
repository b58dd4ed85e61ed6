#!/bin/sh
# Make the virtual environment that everything else runs in.
# Usage: venv.sh PYTHON DIRECTORY REQUIREMENTS
set -eu

python=$1
venv=$2
requirements=$3

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Python 3.11 or newer is needed, and $python is not; name one with: make PYTHON=python3.13 …" >&2
    exit 1
fi

# Debian keeps the part of Python that makes environments in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing python$version-venv …" >&2
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >/dev/null
        apt-get install -qq --yes --no-install-recommends "python$version-venv" >/dev/null
    else
        echo "$python cannot make virtual environments; install the package python$version-venv first." >&2
        exit 1
    fi
fi

echo "Installing the Python packages of $requirements into $venv …" >&2
# From scratch: an environment of yesterday may hold what the list no longer names.
"$python" -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-input \
    --require-hashes --requirement "$requirements"
touch "$venv/.complete"
