#!/usr/bin/env bash
# Installs those of the named Debian packages that are not installed yet.
#
# Usage: scripts/packages.sh [--optional] PACKAGE...
# With --optional a package that cannot be installed is named and passed over.
set -euo pipefail

optional=
[ "${1:-}" != --optional ] || { optional=yes; shift; }

if ! command -v dpkg-query >/dev/null; then
    echo "not a Debian system: these packages, or what they are called here, must be there: $*"
    exit 0
fi

missing=()
for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status} ' "$package" 2>/dev/null || true)
    case " $status" in *" installed "*) ;; *) missing+=("$package") ;; esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "missing packages, and neither root nor sudo to install them: apt-get install ${missing[*]}" >&2
        [ -n "$optional" ] && exit 0 || exit 1
    fi
    root=(sudo)
fi

echo "installing: ${missing[*]}"
# Some packages start a service (apache2): none is wanted here.
environment=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1)
install() {
    "${root[@]}" "${environment[@]}" apt-get install --yes --quiet --quiet --no-install-recommends --no-remove \
        "${missing[@]}" >/dev/null
}
"${root[@]}" apt-get update --quiet --quiet || echo "apt-get update failed; trying with the package lists that are there" >&2
if ! install; then
    [ -n "$optional" ] || { echo "could not install: ${missing[*]}" >&2; exit 1; }
    echo "passed over: ${missing[*]} (tests that need it are skipped)"
fi
