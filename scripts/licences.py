"""Checks the dependencies in Cargo.lock against deny.toml: licences, second versions, sources. Needs no network.

It reads the same tables as `cargo deny check licenses bans sources`, as far as this project uses them, so that the
check also runs where cargo-deny is not installed. Advisories need a database from the network: see `make audit`.

Usage: licences.py [deny.toml]; exit code 1 on a violation, 2 if Cargo or the file cannot be read.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

TOKEN = re.compile(r"\(|\)|/|[A-Za-z0-9.+-]+")


def accepted(expression: str, allow: set[str]) -> bool:
    """Whether an SPDX expression (or the older `MIT/Apache-2.0`) can be met with allowed licences alone.

    `+`, "or a later version", is met only if it is allowed as written.
    """
    tokens = TOKEN.findall(expression) + [""]
    if re.sub(r"\s", "", expression) != "".join(tokens):
        raise ValueError(f"not a licence expression: {expression!r}")
    at = 0

    def either() -> bool:
        nonlocal at
        result = both()
        while tokens[at] in ("OR", "/"):
            at += 1
            # Both sides must be read, whatever the left one says.
            result |= both()
        return result

    def both() -> bool:
        nonlocal at
        result = single()
        while tokens[at] == "AND":
            at += 1
            result &= single()
        return result

    def single() -> bool:
        nonlocal at
        token = tokens[at]
        at += 1
        if token == "(":
            result = either()
            if tokens[at] != ")":
                raise ValueError(f"not a licence expression: {expression!r}")
            at += 1
            return result
        if token in ("", ")", "/", "AND", "OR", "WITH"):
            raise ValueError(f"not a licence expression: {expression!r}")
        if tokens[at] == "WITH":
            token = f"{token} WITH {tokens[at + 1]}"
            at += 2
        return token in allow

    result = either()
    if tokens[at] != "":
        raise ValueError(f"not a licence expression: {expression!r}")
    return result


def violations(packages: list[dict], policy: dict) -> list[str]:
    """What is wrong with the packages of `cargo metadata`, a line each."""
    found = []
    allow = set(policy["licenses"]["allow"])
    registries = {f"registry+{url}" for url in policy["sources"]["allow-registry"]}
    skipped = {entry["name"] for entry in policy["bans"]["skip"]}
    versions = defaultdict(set)
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["source"] is None:
            continue  # a crate of this workspace
        versions[package["name"]].add(package["version"])
        if package["source"] not in registries:
            found.append(f"{name}: source {package['source']} is not allowed")
        try:
            if not accepted(package["license"] or "", allow):
                found.append(f"{name}: licence {package['license']} is not allowed")
        except ValueError:
            found.append(f"{name}: licence {package['license']!r} is not an SPDX expression")
    for name, several in versions.items():
        if len(several) > 1 and name not in skipped:
            found.append(f"{name}: {len(several)} versions ({', '.join(sorted(several))}); one is allowed")
    found += [f"{name}: in bans.skip, but there is only one version" for name in sorted(skipped) if len(versions[name]) < 2]
    return found


def main() -> int:
    """Prints the violations, or how many packages are fine."""
    policy = tomllib.loads(Path(sys.argv[1] if len(sys.argv) > 1 else "deny.toml").read_text(encoding="utf-8"))
    platform = policy["graph"]["targets"][0]
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", platform]
    asked = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if asked.returncode != 0:
        return 2
    packages = json.loads(asked.stdout)["packages"]
    found = violations(packages, policy)
    for line in found:
        print(line)
    outside = sum(package["source"] is not None for package in packages)
    print(f"{outside} dependencies for {platform}: {len(found)} violations of deny.toml; advisories: make audit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
