"""Recurrence of addresses over days, from the lines of a log, against a recomputation."""

import json
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime

from tests.support import OK, Case, lines

SEED = 16
HOUR = 3600
# A whole hour, in seconds.
START = 1_795_446_000
DAYS = 5
PIPELINE = """name: recurrence
nodes:
  - { id: log, kind: source.file, path: access.log, format: reqin_log }
  - { id: features, kind: aggregate, from: log, by: [src_ip], window: 1h, features: [{ name: hits, expr: count(*) }] }
  - id: detections
    kind: detect.rules
    from: features.final
    rules:
      - { name: few, when: hits < 3, level: MEDIUM, reason: few }
      - { name: one, when: hits < 2, level: HIGH, reason: one }
  - { id: recurrence, kind: recurrence, from: detections, look_back: 1d }
  - { id: out, kind: sink.jsonl, from: recurrence, path: changes.out, mode: changes }
  - { id: joined, kind: sink.jsonl, from: recurrence.joined, path: joined.out }
"""


def hour(text: str) -> int:
    """A time as the number of its hour."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() - START) // HOUR


class Recurrence(Case):
    """Rows of a day back, as they stand and as they were joined."""

    def test_five_days_are_those_of_a_recomputation(self) -> None:
        """Whatever the number of workers."""
        rng = random.Random(SEED)
        hits: Counter[tuple[str, int]] = Counter()
        log = []
        for number in range(DAYS * 24):
            for client in range(8):
                address = f"192.0.2.{client}"
                # One of them stays away after the second day.
                for _ in range(0 if client == 7 and number > 40 else rng.choice([0, 0, 1, 2, 3, 9])):
                    hits[address, number] += 1
                    time = START + number * HOUR + rng.randrange(HOUR)
                    log.append((time, json.dumps({"timestamp": time * 10**9, "src_ip": address, "path": "/"})))
        log.sort()
        self.write("access.log", "".join(f"{line}\n" for _, line in log))
        windows: dict[str, dict[int, str]] = defaultdict(dict)
        for (address, number), count in hits.items():
            if count < 3:
                windows[address][number] = "HIGH" if count < 2 else "MEDIUM"
        # A window of hour n is known when it ends, at n + 1, and counts until n + 24.
        last = max(number for known in windows.values() for number in known) + 1
        standing = []
        for address, known in windows.items():
            live = {n: level for n, level in known.items() if n + 24 > last}
            if live:
                worst = "HIGH" if "HIGH" in live.values() else "MEDIUM"
                standing.append((address, len(live), len(live), worst, min(live), max(live)))
        joined = [
            (address, n, sum(n + 1 < m + 24 and m < n for m in known)) for address, known in windows.items() for n in known
        ]
        pipeline = self.write("recurrence.yaml", PIPELINE)
        for workers in (1, 4):
            run = self.engine("run", "-q", "--workers", workers, pipeline)
            self.assert_exit(run, OK)
            sums: Counter[tuple] = Counter()
            for row in lines(self.directory / "changes.out"):
                key = (row["src_ip"], row["recurrence"], row["detections"], row["worst_threat_level"])
                sums[*key, hour(row["first_seen"]), hour(row["last_seen"])] += row["diff"]
            self.assertTrue(all(count in (0, 1) for count in sums.values()))
            self.assert_same_rows([row for row, count in sums.items() if count], standing, f"{workers} workers")
            self.assertNotIn("192.0.2.7", [row[0] for row, count in sums.items() if count])
            rows = lines(self.directory / "joined.out")
            found = [(row["src_ip"], hour(row["window_start"]), row["recurrence"]) for row in rows]
            self.assert_same_rows(found, joined, f"{workers} workers")
