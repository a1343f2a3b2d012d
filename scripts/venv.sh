#!/usr/bin/env bash
# Makes a Python environment with pinned requirements; one that is up to date is left alone.
#
# Usage: scripts/venv.sh DIRECTORY REQUIREMENTS
set -euo pipefail
directory=$1 requirements=$2

installed=$directory/installed-requirements.txt
cmp --silent "$requirements" "$installed" && [ -x "$directory/bin/python" ] && exit 0
rm -rf "$directory"
python3 -m venv "$directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
cp "$requirements" "$installed"
