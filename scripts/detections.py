"""Prints the detections of a run, and beside them which client of the recording it was.

Usage: detections.py DETECTIONS TRUTH (both JSON lines)
"""

import json
import sys
from pathlib import Path

LEVELS = ("CRITICAL", "HIGH", "MEDIUM", "LOW")
WIDTH = 100


def rows(path: str) -> list[dict]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def rank(row: dict) -> int:
    """Place of a row's level among LEVELS; a verdict that is no level comes last."""
    return LEVELS.index(row["threat_level"]) if row["threat_level"] in LEVELS else len(LEVELS)


def main() -> None:
    """Prints one line a detection, the highest level first, and the clients without one."""
    clients = {address: client for client in rows(sys.argv[2]) for address in client["src_ips"]}
    detections = sorted(rows(sys.argv[1]), key=lambda row: (rank(row), -row["hits"]))
    print(f"\n{len(detections)} detections\n{'level':18} {'client in truth.jsonl':22} {'src_ip':18} {'hits':>5}  reason")
    for row in detections:
        client = clients.get(row["src_ip"], {}).get("client", "?")
        # A reason holds text that clients have sent.
        reason = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in row.get("reason") or "")
        reason = reason if len(reason) <= WIDTH else reason[: WIDTH - 1] + "…"
        print(f"{row['threat_level']:18} {client:22} {row['src_ip']:18} {row['hits']:5}  {reason}")
    detected = {row["src_ip"] for row in detections}
    quiet = [client["client"] for client in rows(sys.argv[2]) if not detected.intersection(client["src_ips"])]
    print(f"not detected: {', '.join(quiet)}")


if __name__ == "__main__":
    main()
