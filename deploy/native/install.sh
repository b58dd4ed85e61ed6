#!/bin/sh
# Install the named Debian packages without starting anything or touching what is there.
# Usage: install.sh PACKAGE…   (as root)
set -eu

policy=/usr/sbin/policy-rc.d
cluster_defaults=/etc/postgresql-common/createcluster.conf
undo=''

cleanup() {
    for file in $undo; do rm -f "$file"; done
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# Debian starts a server as soon as it is installed, on the very port that
# somebody else's server, or our own private one, may want.
if [ ! -e "$policy" ]; then
    undo="$undo $policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt-get update -qq

# The packages' own cluster "main" would never be used. Only said where
# PostgreSQL has not been configured before: this file belongs to its owner.
for package in "$@"; do
    if [ "$package" = postgresql ] && [ ! -e "$cluster_defaults" ]; then
        mkdir -p "$(dirname "$cluster_defaults")"
        printf 'create_main_cluster = false\ninclude_dir = '\''/etc/postgresql-common/createcluster.d'\''\n' \
            >"$cluster_defaults"
    fi
done

apt-get install -qq --yes --no-install-recommends \
    -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold "$@"
