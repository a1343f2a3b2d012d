#!/usr/bin/env python3
"""What a detection pipeline finds in recordings whose truth is known, by tier, with TLS and without.

Usage: recall.py [--pipeline FILE] [--train RECORDING…] [--misses] [--join FILE] RECORDING…

RECORDING is a directory of `make record SCENARIO=tiers`. The pipeline is one that reads recording/demo, as
pipelines/demo.yaml and pipelines/detect.yaml do: it runs on a copy in which that is the recording. A client counts as
caught if one of its groups is; a group is what the pipeline judges (host, address, JA4). Groups of a person and a bot
behind one address are counted apart. "MEDIUM" means MEDIUM or worse.

--train: recordings that run first, for pipelines with a model; none of them is reported.
--misses: the bots that were not found, and the people who were.
--join: writes every group's row with its truth as JSON lines.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import recordings
from recordings import Recording

ROOT = Path(__file__).resolve().parents[1]
TIERS = ("T1", "T2", "T3", "T4")
SERIOUS = {"CRITICAL", "HIGH", "MEDIUM", "ANUBIS_DENY"}
# What a group may be of, of the columns that requests and detections both have.
KEYS = ("host", "src_ip", "ja4", "header_user_agent")
# What says that nothing is wrong.
QUIET = {"NORMAL", "LEGITIMATE_BROWSER", None}


class Result:
    """The groups of one or several runs: what each is, and what the pipeline said."""

    def __init__(self):
        self.groups: list[dict] = []

    def add(self, recording: Recording, groups: dict, levels: dict) -> None:
        """The groups of one recording with the levels of its run."""
        for key, clients in groups.items():
            bots = {recording.clients[name]["bot"] for name in clients}
            self.groups.append(
                {
                    "recording": recording.name,
                    "key": key,
                    "clients": sorted(clients),
                    "level": levels.get(key),
                    "what": "mixed" if len(bots) > 1 else "bot" if True in bots else "person",
                    "tier": max((recording.clients[name]["tier"] for name in clients), default=""),
                }
            )

    def clients(self, recordings_: list[Recording]) -> list[dict]:
        """Each client that has sent something, with the worst that was said of it."""
        found = []
        for recording in recordings_:
            for client in recording.clients.values():
                # A person is not to blame for what a bot does behind the same address.
                mine = [
                    group
                    for group in self.groups
                    if group["recording"] == recording.name
                    and client["client"] in group["clients"]
                    and (client["bot"] or group["what"] == "person")
                ]
                if mine:
                    found.append(
                        client
                        | {
                            "recording": recording.name,
                            "any": any(group["level"] not in QUIET for group in mine),
                            "serious": any(group["level"] in SERIOUS for group in mine),
                        }
                    )
        return found


def share(rows: list[dict], condition) -> str:
    """`7 of 9 (.78)`."""
    hit = sum(bool(condition(row)) for row in rows)
    return f"{hit} of {len(rows)} ({hit / len(rows):.2f})" if rows else "-"


def table(title: str, result: Result, recordings_: list[Recording]) -> None:
    """One table of Markdown: a line a tier, then people."""
    clients = result.clients(recordings_)
    print(f"\n{title}\n")
    print("| | clients: any | clients: MEDIUM | groups: any | groups: MEDIUM |\n|---|---|---|---|---|")
    for tier in (*TIERS, ""):
        of = [client for client in clients if client["tier"] == tier and client["bot"] == bool(tier)]
        groups = [
            group for group in result.groups if group["what"] == ("bot" if tier else "person") and group["tier"] == tier
        ]
        print(
            f"| {tier or 'people'} | {share(of, lambda one: one['any'])} | {share(of, lambda one: one['serious'])} "
            f"| {share(groups, lambda one: one['level'] not in QUIET)} | {share(groups, lambda one: one['level'] in SERIOUS)} |"
        )
    flagged = [group for group in result.groups if group["level"] in SERIOUS and group["what"] != "mixed"]
    mixed = [group for group in result.groups if group["what"] == "mixed"]
    print(
        f"\nPrecision of groups, MEDIUM: {share(flagged, lambda one: one['what'] == 'bot')}; groups of people and bots: "
        f"{len(mixed)}, of which flagged {sum(group['level'] in SERIOUS for group in mixed)}."
    )


def misses(result: Result, recordings_: list[Recording]) -> None:
    """Who was not found, and who should not have been."""
    for client in result.clients(recordings_):
        if client["bot"] != client["serious"]:
            said = "MEDIUM or worse" if client["serious"] else "LOW" if client["any"] else "nothing"
            print(
                f"{'missed' if client['bot'] else 'wrong':7} {client['recording']:8} {client['tier']:3} "
                f"{client['client']:30} {client['kind']:28} {client['requests']:4} requests, {said}"
            )


def baseline(recordings_: list[Recording]) -> Result:
    """The rules of User-Agent and favicon on the same requests: a group is an address and a User-Agent."""
    result = Result()
    for recording in recordings_:
        groups, icons, named = {}, set(), set()
        for request in recording.requests:
            agent = request.get("header_User-Agent", "")
            key = (request["src_ip"], agent)
            groups.setdefault(key, set()).add(request["client"])
            if request["path"] == "/favicon.ico":
                icons.add(key)
            if recordings.names_itself(agent):
                named.add(key)
        result.add(recording, groups, {key: "MEDIUM" for key in groups if key in named or key not in icons})
    return result


def run(pipeline: Path, recording: Recording, tls: bool, models: Path, engine: str) -> tuple[dict, dict, list[dict]]:
    """Groups, their levels and the rows of a run."""
    with tempfile.TemporaryDirectory(prefix="recall-") as work:
        data = recordings.engine(engine, pipeline, recording, tls, models, Path(work))
        requests = recordings.rows(data / "recall.jsonl")
        judged = recordings.rows(data / "detections.jsonl")
        all_rows = next(
            (recordings.rows(data / name) for name in ("verdicts.jsonl", "features.jsonl") if (data / name).exists()),
            [],
        )
    by = [name for name in KEYS if not judged or name in judged[0]]
    groups = {}
    for request in requests:
        key = tuple(request.get(name) or "" for name in by)
        groups.setdefault(key, set()).add(recording.client(request["src_ip"], request["src_port"], request["time_ns"]))
    for row in all_rows:
        row["key"] = tuple(row.get(name) or "" for name in by)
    levels = {}
    for row in judged:
        key = tuple(row.get(name) or "" for name in by)
        level = row.get("threat_level") or row.get("verdict")
        levels[key] = worse(level, levels.get(key))
    return groups, levels, all_rows


def worse(one: str | None, other: str | None) -> str | None:
    """The worse of two levels."""
    return min((one, other), key=lambda level: (level not in SERIOUS, level in QUIET))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pipeline", type=Path, default=ROOT / "pipelines/detect.yaml")
    options.add_argument("--train", type=Path, nargs="*", default=[])
    options.add_argument("--min-rows", type=int, default=50, help="rows that a model needs")
    options.add_argument("--misses", action="store_true")
    options.add_argument("--join", type=Path)
    options.add_argument("recordings", type=Path, nargs="+")
    given = options.parse_args()
    engine = os.environ.get("JA4_ENGINE") or str(ROOT / "target/debug/ja4-engine")
    test = [Recording(path) for path in given.recordings]
    print(
        f"{given.pipeline.name} on {', '.join(one.name for one in test)}"
        + (f", trained on {', '.join(path.name for path in given.train)}" if given.train else "")
    )
    joined = []
    for tls in (True, False):
        with tempfile.TemporaryDirectory(prefix="recall-models-") as models:
            if given.train:
                recordings.train(
                    engine, given.pipeline, [Recording(path) for path in given.train], tls, Path(models), given.min_rows
                )
            result = Result()
            for recording in test:
                groups, levels, rows = run(given.pipeline, recording, tls, Path(models), engine)
                result.add(recording, groups, levels)
                known = {group["key"]: group for group in result.groups if group["recording"] == recording.name}
                joined += [{"tls": tls, **known[row["key"]], **row} for row in rows if row["key"] in known]
        table("With TLS" if tls else "Without TLS (the request log alone)", result, test)
        if given.misses:
            misses(result, test)
    table("Rules of User-Agent and favicon", baseline(test), test)
    if given.misses:
        misses(baseline(test), test)
    if given.join:
        given.join.write_text("".join(json.dumps(row) + "\n" for row in joined))
    return 0


if __name__ == "__main__":
    sys.exit(main())
