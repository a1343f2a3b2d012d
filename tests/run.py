#!/usr/bin/env python3
"""Runs the end-to-end tests, several modules at a time: each in a process of its own, with its own folders, ports and
network namespaces. What a module says is printed when it ends.

Usage: tests/run.py [--jobs N] [MODULE, or a test in one, …]    without names: all modules
"""

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What takes longest begins first, so that nothing long is left for the end.
FIRST = (
    "tests.clickhouse.test_sink", "tests.reload.test_reload", "tests.recovery.test_kill", "tests.clickhouse.test_kill",
    "tests.servers.test_servers", "tests.clickhouse.test_restart", "tests.recovery.test_spool",
)

# The longest that one module may take, also on a busy machine; the counts of `make soak` take hours.
LIMIT_S = 6 * 3600


def modules() -> list[str]:
    """The names of all test modules."""
    found = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "tests").rglob("test_*.py"))
    names = sorted(".".join(path.parts) for path in found)
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def run(name: str) -> tuple[str, int, float, str]:
    """Name, exit code, seconds and output of one module."""
    start = time.monotonic()
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "unittest", "--verbose", name]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=LIMIT_S, check=False,
        )
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, text = 1, f"{error.stdout or ''}\nnot done after {LIMIT_S} s"
    return name, code, time.monotonic() - start, text


def counted(text: str, what: str) -> int:
    """A number out of what unittest says at its end."""
    found = re.findall(rf"{what}[= ](\d+)", text)
    return int(found[-1]) if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the end-to-end tests, several modules at a time.")
    parser.add_argument("--jobs", type=int, default=min(4, (os.cpu_count() or 1) + 1), help="modules at a time")
    parser.add_argument("names", nargs="*", help="modules, classes or tests; without: all modules")
    options = parser.parse_args()
    names, start = options.names or modules(), time.monotonic()
    failed, tests, skipped = [], 0, 0
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for done in as_completed([pool.submit(run, name) for name in names]):
            name, code, seconds, text = done.result()
            print(f"{text.rstrip()}\n==> {name}: {'ok' if code == 0 else 'FAILED'} in {seconds:.0f} s\n", flush=True)
            tests += counted(text, "Ran")
            skipped += counted(text, "skipped")
            if code != 0:
                failed.append(name)
    print(f"{tests} tests of {len(names)} modules in {time.monotonic() - start:.0f} s, {skipped} skipped")
    if not tests and not failed:
        failed.append("no test was found")
    for name in failed:
        print(f"FAILED: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
