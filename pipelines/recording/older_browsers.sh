#!/usr/bin/env bash
# Unpacks, beside the installed ones, the other versions of Chromium and Firefox that Debian has, so that the people of a
# recording do not all have one version.
#
# Usage: older_browsers.sh DIRECTORY
set -euo pipefail
mkdir -p "$1"
directory=$(cd "$1" && pwd)

for package in chromium firefox-esr; do
    newest=$(apt-cache policy "$package" | awk '/Candidate:/ { print $2 }')
    older=$(apt-cache madison "$package" | awk '{ print $3 }' | grep -vFx "$newest" | head -1 || true)
    if [ -z "$older" ]; then
        echo "Debian has one version of $package: people have that alone"
        continue
    fi
    target=$directory/$package-$older
    [ ! -d "$target" ] || continue
    echo "unpacking $package $older"
    work=$(mktemp -d)
    names=("$package=$older")
    [ "$package" != chromium ] || names+=("chromium-common=$older")
    (cd "$work" && apt-get download --quiet --quiet "${names[@]}" 2>/dev/null)
    for archive in "$work"/*.deb; do
        dpkg -x "$archive" "$work/unpacked"
    done
    mv "$work/unpacked" "$target"
    rm -rf "$work"
done
