#!/usr/bin/env bash
# Makes sure that there is a Rust toolchain as new as Cargo.toml's rust-version.
#
# Usage: scripts/toolchain.sh [--components]
# With --components also clippy and rustfmt. A toolchain that is there and new enough is left alone. Otherwise:
# Debian 12's security archive has a current one for building browsers (cargo-web); newer releases have rustup.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(sed -nE 's/^rust-version = "([0-9.]+)"/\1/p' Cargo.toml)
root=()
[ "$(id -u)" = 0 ] || root=(sudo)

# Whether version $1 is at least version $2.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort --version-sort | head -n 1)" = "$2" ]; }

# The version of the cargo on the path, empty without one.
cargo_version() { cargo --version 2>/dev/null | sed -nE 's/^cargo ([0-9.]+).*/\1/p' || true; }

# The version of package $1 that apt would install, without its Debian revision; empty without one.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -nE 's/^ *Candidate: ([0-9]+:)?([0-9.]+).*/\2/p'; }

advise() {
    cat >&2 <<TEXT
Rust $wanted or newer is needed; found: ${found:-none}. The usual way is rustup (https://rustup.rs):
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default
TEXT
    exit 1
}

found=$(cargo_version)
if [ -z "$found" ] || ! at_least "$found" "$wanted"; then
    command -v apt-cache >/dev/null || advise
    [ -n "$(candidate cargo-web)$(candidate rustup)" ] || "${root[@]}" apt-get update --quiet --quiet || true
    packaged=$(candidate cargo-web)
    if [ -n "$packaged" ] && at_least "$packaged" "$wanted"; then
        scripts/packages.sh cargo-web rustc-web rust-web-clippy rustfmt-web || advise
    elif [ -n "$(candidate rustup)" ]; then
        { scripts/packages.sh rustup && rustup default stable; } || advise
    fi
    hash -r
    found=$(cargo_version)
    if [ -z "$found" ] || ! at_least "$found" "$wanted"; then advise; fi
fi

if [ "${1:-}" = --components ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    if command -v rustup >/dev/null; then
        rustup component add clippy rustfmt
    else
        echo "cargo has no clippy or rustfmt: install them as cargo was installed" >&2
        exit 1
    fi
fi
