#!/usr/bin/env python3
"""What bots in the baseline of a model cost: recall with people alone in it, and with a share of bots.

Usage: poisoning.py [--pipeline FILE] [--share 0.1] [--draws 3] RECORDING…

RECORDING is a directory of `make record SCENARIO=tiers`. Each is judged by a model that was trained on all others; the
figures are sums. A baseline is given by the truth: rows of addresses that only people have, and in the poisoned one rows of
bots besides, drawn by a seed until they are `share` of all. Clients count as caught at MEDIUM or worse by the verdict, and,
by the model alone, if a group's score is below 0, which is its border, or below the score that 1 % of people's groups have.
"""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

import recall
import recordings
from recordings import Recording

HOUR = 3600 * 10**9


def hours(train: list[Recording]) -> list[int]:
    """The hour that each recording has in what recordings.merge makes of them."""
    begin = min(request["timestamp"] for one in train for request in one.requests) // HOUR * HOUR
    return [begin - (len(train) - number) * HOUR for number in range(len(train))]


def addresses(recording: Recording, groups: dict) -> dict[str, tuple[bool, int]]:
    """Of each address that only people or only bots have: whether they are bots, and how many groups it has."""
    found = {}
    for (_, address, *_), clients in groups.items():
        kinds, count = found.get(address, (set(), 0))
        found[address] = (kinds | {recording.clients[name]["bot"] for name in clients}, count + 1)
    return {address: (True in kinds, count) for address, (kinds, count) in found.items() if len(kinds) == 1}


def condition(train: list[Recording], known: dict[str, dict], share: float, seed: int) -> str:
    """The baseline as SQL."""
    people, bots = [], []
    for recording, hour in zip(train, hours(train)):
        for address, (is_bot, count) in known[recording.name].items():
            (bots if is_bot else people).append((f"{hour} {address}", count))
    random.Random(seed).shuffle(bots)
    wanted = sum(count for _, count in people) * share / (1 - share)
    chosen = [key for key, _ in people]
    for key, count in bots:
        if wanted <= 0:
            break
        chosen.append(key)
        wanted -= count
    listed = ", ".join(f"'{key}'" for key in chosen)
    return f"concat(cast(cast(window_start as bigint) as varchar), ' ', src_ip) in ({listed})"


def with_baseline(pipeline: Path, baseline: str) -> Path:
    """A copy of the pipeline beside it, with another baseline."""
    lines = pipeline.read_text().splitlines(keepends=True)
    copy = pipeline.with_name(f"poisoning_{os.getpid()}.yaml")
    copy.write_text("".join(f'    baseline: "{baseline}"\n' if "    baseline:" in line else line for line in lines))
    return copy


class Tally:
    """Bots and people that were caught in several ways, of how many."""

    WAYS = ("verdict MEDIUM", "score < 0", "score of 1 % of people")

    def __init__(self):
        self.bots, self.people = [], []
        self.models = 0

    def add(self, recording: Recording, groups: dict, levels: dict, rows: list[dict]) -> None:
        """One recording that was judged."""
        scores = {}
        for row in rows:
            if row.get("anomaly_score") is not None:
                scores[row["key"]] = min(row["anomaly_score"], scores.get(row["key"], 1.0))
        self.models += bool(scores)
        clients = {}
        for key, names in groups.items():
            mixed = len({recording.clients[name]["bot"] for name in names}) > 1
            for name in names:
                if not mixed or recording.clients[name]["bot"]:
                    one = clients.setdefault(name, [False, 1.0])
                    one[0] |= levels.get(key) in recall.SERIOUS
                    one[1] = min(one[1], scores.get(key, 1.0))
            if not mixed and not recording.clients[min(names)]["bot"]:
                self.people.append((levels.get(key) in recall.SERIOUS, scores.get(key, 1.0)))
        self.bots += [tuple(one) for name, one in clients.items() if recording.clients[name]["bot"]]

    def recall(self) -> dict[str, float]:
        """The share of bots, by way; for the last one people's 1 % is where the border is."""
        border = sorted(score for _, score in self.people)[len(self.people) // 100]
        caught = {
            "verdict MEDIUM": sum(verdict for verdict, _ in self.bots),
            "score < 0": sum(score < 0 for _, score in self.bots),
            "score of 1 % of people": sum(score < border for _, score in self.bots),
        }
        return {way: count / len(self.bots) for way, count in caught.items()}

    def wrong(self) -> dict[str, float]:
        """The share of people's groups below 0 and at MEDIUM."""
        return {
            "verdict MEDIUM": sum(verdict for verdict, _ in self.people) / len(self.people),
            "score < 0": sum(score < 0 for _, score in self.people) / len(self.people),
        }


def judge(given: argparse.Namespace, all_of: list[Recording], known: dict, share: float, seed: int) -> Tally:
    """Each recording by a model of the others."""
    tally = Tally()
    for test in all_of:
        train = [one for one in all_of if one is not test]
        pipeline = with_baseline(given.pipeline, condition(train, known, share, seed))
        try:
            with tempfile.TemporaryDirectory(prefix="poisoning-") as models:
                recordings.train(given.engine, pipeline, train, True, Path(models), given.min_rows)
                tally.add(test, *recall.run(pipeline, test, True, Path(models), given.engine))
        finally:
            pipeline.unlink()
    return tally


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pipeline", type=Path, default=recall.ROOT / "pipelines/detect.yaml")
    options.add_argument("--share", type=float, default=0.1)
    options.add_argument("--draws", type=int, default=3, help="how many times other bots are drawn")
    options.add_argument("--min-rows", type=int, default=50, help="rows that a model needs")
    options.add_argument("recordings", type=Path, nargs="+")
    given = options.parse_args()
    given.engine = os.environ.get("JA4_ENGINE") or str(recall.ROOT / "target/debug/ja4-engine")
    all_of = [Recording(path) for path in given.recordings]
    known = {}
    for one in all_of:
        groups, _, _ = recall.run(given.pipeline, one, True, Path("none"), given.engine)
        known[one.name] = addresses(one, groups)
    clean = judge(given, all_of, known, 0.0, 0)
    print(f"{len(clean.bots)} bots, {len(clean.people)} groups of people; models: {clean.models} of {len(all_of)}\n")
    print("| baseline | " + " | ".join(Tally.WAYS) + " | people's groups: MEDIUM, score < 0 |\n|---" + "|---" * 4 + "|")
    line("people alone", clean)
    for seed in range(1, given.draws + 1):
        line(f"{given.share:.0%} bots, draw {seed}", judge(given, all_of, known, given.share, seed))
    return 0


def line(name: str, tally: Tally) -> None:
    """One line of the table."""
    shares, wrong = tally.recall(), tally.wrong()
    cells = [f"{shares[way]:.3f}" for way in Tally.WAYS]
    print(f"| {name} ({tally.models} models) | " + " | ".join(cells) + f" | {', '.join(f'{share:.3f}' for share in wrong.values())} |")


if __name__ == "__main__":
    sys.exit(main())
