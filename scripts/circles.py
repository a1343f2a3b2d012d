#!/usr/bin/env python3
"""Finds circles among the modules of a crate: `scripts/circles.py engine/src operators/client_hello/src dashboards/src`.

A module is a file or folder directly beneath the crate's root. It depends on those that it names with `crate::`. Tests do
not count. Exit code 1 if there is a circle.
"""

import re
import sys
from pathlib import Path

TESTS = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", re.DOTALL)
TEST_MODULE = re.compile(r"cfg\((?:test|any\(test[^)]*\))\)\]\s*(?:pub(?:\(crate\))? )?mod (\w+);")
COMMENT = re.compile(r"//[^\n]*")
USE = re.compile(r"\bcrate::(?:\{([^}]*)\}|(\w+))")


def dependencies(root: Path) -> dict[str, set[str]]:
    """For each module those that it names."""
    found: dict[str, set[str]] = {}
    tests = {"lib", "main", *TEST_MODULE.findall((root / "lib.rs").read_text(encoding="utf-8"))}
    for path in sorted(root.rglob("*.rs")):
        inside = path.relative_to(root)
        own = inside.parts[0].removesuffix(".rs")
        if own in tests or "tests" in inside.parts or path.stem == "tests" or path.stem.endswith("_tests"):
            continue
        text = COMMENT.sub("", TESTS.sub("", path.read_text(encoding="utf-8")))
        names = {name.strip().split("::")[0] for group, one in USE.findall(text) for name in (group or one).split(",")}
        found.setdefault(own, set()).update(names - {own, ""})
    return {own: {name for name in names if name in found} for own, names in found.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that depend on each other, by Tarjan's algorithm for strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return found


def main() -> int:
    """Says what was found."""
    code = 0
    for root in map(Path, sys.argv[1:]):
        graph = dependencies(root)
        for circle in circles(graph):
            code = 1
            print(f"{root}: a circle of {len(circle)} modules")
            for module in circle:
                print(f"  {module} names {', '.join(sorted(graph[module] & set(circle)))}")
    return code


if __name__ == "__main__":
    sys.exit(main())
