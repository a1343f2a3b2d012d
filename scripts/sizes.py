#!/usr/bin/env python3
"""Fails if a file of Rust has more than 400 lines, or a function more than 60, outside tests.

Usage: scripts/sizes.py DIRECTORY…
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES, FUNCTION_LINES = 400, 60

FUNCTION = re.compile(r"^(\s*)(?:pub(?:\([a-z: ]+\))? )?(?:const |async |unsafe )*fn (\w+)")


def is_test(path: Path) -> bool:
    """Whether a file holds nothing but tests."""
    return "tests" in path.parts or path.stem == "tests" or path.stem.endswith("_tests")


def test_modules(path: Path) -> set[Path]:
    """The files of modules that are compiled for tests alone."""
    text = path.read_text()
    names = re.findall(r"#\[cfg\(test\)\]\n\s*(?:pub(?:\([a-z]+\))? )?mod (\w+);", text)
    folder = path.parent if path.stem in ("mod", "lib", "main") else path.with_suffix("")
    return {folder / f"{name}.rs" for name in names} | {folder / name / "mod.rs" for name in names}


def code(path: Path) -> list[str]:
    """The lines before the tests that stand in the file."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if line == "#[cfg(test)]" and any(re.match(r"mod \w+ \{", after) for after in lines[number + 1 : number + 4]):
            return lines[:number]
    return lines


def functions(lines: list[str]) -> Iterator[tuple[int, str, int]]:
    """Number of the first line, name and number of lines of each function, formatted as rustfmt does."""
    for number, line in enumerate(lines):
        found = FUNCTION.match(line)
        if not found:
            continue
        # A body opens at the end of a line; a declaration without one, and a body within a line, do not.
        head = next((at for at in range(number, len(lines)) if lines[at].endswith(("{", ";", "}"))), number)
        if not lines[head].endswith("{"):
            continue
        end = next((at for at in range(head, len(lines)) if lines[at] == f"{found[1]}}}"), head)
        yield number + 1, found[2], end - number + 1


def main() -> int:
    files = sorted(path for folder in sys.argv[1:] for path in Path(folder).rglob("*.rs"))
    of_tests = set().union(*(test_modules(path) for path in files)) if files else set()
    faults = []
    for path in files:
        if is_test(path) or any(path == test or test.parent / test.stem in path.parents for test in of_tests):
            continue
        lines = code(path)
        if len(lines) > FILE_LINES:
            faults.append(f"{path}: {len(lines)} lines, more than {FILE_LINES}")
        long = ((number, name, count) for number, name, count in functions(lines) if count > FUNCTION_LINES)
        faults += [f"{path}:{number}: `{name}` has {count} lines, more than {FUNCTION_LINES}" for number, name, count in long]
    print("\n".join(faults), end="\n" if faults else "")
    if not files:
        print("no file of Rust was found")
    return 1 if faults or not files else 0


if __name__ == "__main__":
    sys.exit(main())
