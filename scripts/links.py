#!/usr/bin/env python3
"""Checks that the files to which the documents link are there. Exit code 1 if one is not."""

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def main() -> int:
    """Says which links lead nowhere."""
    documents = subprocess.run(["git", "ls-files", "*.md"], check=True, capture_output=True, text=True).stdout.split()
    missing = [
        f"{document}: {target}"
        for document in map(Path, documents)
        for target in LINK.findall(document.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (document.parent / target).exists()
    ]
    print("\n".join(missing) if missing else f"{len(documents)} documents")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
