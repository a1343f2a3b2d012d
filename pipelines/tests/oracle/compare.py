"""Compares what the engine wrote for a capture and a log with what the oracles compute from them.

Every request must be there once, with the same hello, keep-alive number and network; every group and window must be
there once, with every feature within 1e-9 (relative above 1, absolute below). Prints a table a part; exits with 1 on a
difference, 2 if a file cannot be read.

Usage: compare.py --pcap CAPTURE --log REQUESTS [--asn TABLE] [--hellos ROWS] --correlated ROWS --features ROWS
       compare.py --correlated ROWS --features ROWS     features only, recomputed from the engine's own rows
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from asn import COLUMNS as ASN_COLUMNS
from asn import Networks
from correlate import Joined, iso_nanoseconds, join, requests
from features import HEADERS, features, of_rows, written
from hellos import Hello, hellos

TOLERANCE = 1e-9
KEY = ("window_start", "host", "src_ip", "ja4")
# Columns of a features row that are no feature: the key and what the engine says about the row itself.
NO_FEATURE = {*KEY, "window_end", "final", "revision", "time", "seq"}
COPIED = ("src_port", "dst_ip", "dst_port", "method", "scheme", "host", "path", "query", "http_version", "status_code",
          "response_size", "duration_ms", "has_cookie")
FROM_HELLO = ("ja4", "tls_sni", "tls_alpn", "ip_meta_ttl", "ip_meta_id", "tcp_meta_window_size", "tcp_meta_mss",
              "syn_to_clienthello_ms", "post_quantum")
EXAMPLES = 5


@dataclass
class Tally:
    """Comparisons and differences by name, with the first examples."""

    compared: Counter = field(default_factory=Counter)
    different: Counter = field(default_factory=Counter)
    largest: dict[str, float] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def check(self, name: str, where: object, engine: object, oracle: object) -> None:
        """Compares two values; null and a missing key are the same."""
        self.compared[name] += 1
        if isinstance(engine, (int, float)) and isinstance(oracle, (int, float)):
            distance = abs(engine - oracle) / max(1.0, abs(engine), abs(oracle))
            self.largest[name] = max(self.largest.get(name, 0.0), distance)
            equal = engine == oracle if both_integers(engine, oracle) else distance <= TOLERANCE
        else:
            equal = engine == oracle
        if not equal:
            self.fail(name, f"{where}: engine {engine!r}, oracle {oracle!r}")

    def fail(self, name: str, example: str) -> None:
        """Counts a difference."""
        self.different[name] += 1
        if self.different[name] <= EXAMPLES:
            self.examples.append(f"{name} at {example}")

    def print(self, title: str) -> bool:
        """Prints the table; true without a difference."""
        print(f"{title}\n  {'name':28} {'compared':>9} {'different':>9} {'largest':>9}")
        for name in [*self.compared, *(n for n in self.different if n not in self.compared)]:
            largest = f"{self.largest[name]:.1e}" if name in self.largest else "-"
            print(f"  {name:28} {self.compared[name]:9} {self.different[name]:9} {largest:>9}")
        for example in self.examples:
            print(f"  ! {example}")
        return not self.different


def both_integers(left: object, right: object) -> bool:
    """Whether neither is a float: those compare exactly, however large."""
    return not isinstance(left, float) and not isinstance(right, float)


def compare_hellos(engine: Iterable[dict], oracle: list[Hello]) -> Tally:
    """The engine's hellos against tshark's; paired by the client's end, in order of time."""
    tally = Tally()
    ends = defaultdict(lambda: ([], []))
    for line in engine:
        ends[line["src_ip"], line["src_port"]][0].append((iso_nanoseconds(line["time"]), line))
    for hello in oracle:
        ends[hello.src_ip, hello.src_port][1].append((hello.time, hello))
    for end, sides in ends.items():
        ours, theirs = (sorted(side, key=lambda pair: pair[0]) for side in sides)
        tally.check("hellos", end, len(ours), len(theirs))
        for (time, line), (expected, hello) in zip(ours, theirs):
            tally.check("time", end, time, expected)
            for name in ("dst_ip", "dst_port", *FROM_HELLO):
                tally.check(name, end, line.get(name), getattr(hello, name))
    return tally


def compare_rows(engine: Iterable[dict], oracle: list[Joined], networks: Networks | None) -> Tally:
    """The engine's correlated rows against the join; rows are paired by `seq`."""
    tally = Tally()
    expected = {row.request.seq: row for row in oracle}
    seen: Counter[int] = Counter()
    for line in engine:
        seq = line["seq"]
        seen[seq] += 1
        row = expected.get(seq)
        if row is None:
            tally.fail("request", f"seq {seq}: only the engine has it")
            continue
        for name, wanted in row_columns(row, networks).items():
            got = line.get(name)
            tally.check(name, f"seq {seq}", iso_nanoseconds(got) if name == "time" and got else got, wanted)
    for seq in expected:
        tally.compared["request"] += 1
        if seen[seq] != 1:
            tally.fail("request", f"seq {seq}: the engine has it {seen[seq]} times")
    return tally


def row_columns(row: Joined, networks: Networks | None) -> dict:
    """The columns of a correlated row that the oracles know."""
    request, hello = row.request, row.hello
    columns = {"time": request.time, "src_ip": request.src_ip}
    columns |= {name: request.line.get(name) for name in COPIED}
    columns |= {f"header_{n.lower().replace('-', '_')}": request.line.get(f"header_{n}") for n in HEADERS}
    columns |= {"correlated": row.correlated, "orphan_side": "" if hello else "A", "keepalives": row.keepalives}
    columns |= {name: getattr(hello, name) if hello else None for name in FROM_HELLO}
    if hello:
        columns["b_timestamp"] = hello.time
    if networks:
        found = networks.find(request.src_ip)
        columns |= {name: found.get(name) for name in ASN_COLUMNS.values()}
    return columns


def compare_features(engine: Iterable[dict], oracle: list[dict]) -> Tally:
    """The engine's settled feature rows against DuckDB's; rows are paired by group and window."""
    tally = Tally()
    expected = {tuple(row[name] for name in KEY): row for row in oracle}
    seen: Counter[tuple] = Counter()
    for line in engine:
        if line.get("final") is False:
            continue
        key = (iso_nanoseconds(line["window_start"]), line.get("host"), line.get("src_ip"), line.get("ja4") or None)
        seen[key] += 1
        wanted = expected.get(key)
        if wanted is None:
            tally.fail("group", f"{key}: only the engine has it")
            continue
        unknown = [name for name in line if name not in wanted and name not in NO_FEATURE]
        for name in unknown:
            tally.fail(name, f"{key}: no oracle computes it")
        for name, value in wanted.items():
            if name not in KEY:
                tally.check(name, key, instant(line.get(name)), value)
    for key in expected:
        tally.compared["group"] += 1
        if seen[key] != 1:
            tally.fail("group", f"{key}: the engine has it {seen[key]} times")
    return tally


def instant(value: object) -> object:
    """A time written as text in nanoseconds; anything else as it is."""
    return iso_nanoseconds(value) if isinstance(value, str) and value[4:5] == "-" and "T" in value else value


def lines(path: Path) -> Iterable[dict]:
    """The objects of a file of JSON lines."""
    with path.open(encoding="utf-8") as rows:
        for row in rows:
            yield json.loads(row)


def main() -> int:
    """Compares; the exit code says how it went."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pcap", type=Path, help="the capture that the engine read; without it, only features are compared")
    options.add_argument("--log", type=Path, help="the request log that the engine read; with --pcap")
    options.add_argument("--asn", type=Path, help="the ASN table; without it, its columns are not compared")
    options.add_argument("--hellos", type=Path, help="the engine's hellos, JSON lines; without it, only its join is compared")
    options.add_argument("--correlated", type=Path, required=True, help="the engine's correlated rows, JSON lines")
    options.add_argument("--features", type=Path, required=True, help="the engine's settled feature rows, JSON lines")
    given = options.parse_args()
    if (given.pcap is None) != (given.log is None):
        options.error("--pcap and --log go together")
    try:
        if given.pcap is None:
            expected = of_rows([written(line) for line in lines(given.correlated)])
            return 0 if compare_features(lines(given.features), expected).print("features") else 1
        found = hellos(given.pcap)
        joined = join(requests(given.log), found)
        networks = Networks(given.asn) if given.asn else None
        tallies = {"hellos": compare_hellos(lines(given.hellos), found)} if given.hellos else {}
        tallies["correlated rows"] = compare_rows(lines(given.correlated), joined, networks)
        tallies["features"] = compare_features(lines(given.features), features(joined))
    except OSError as problem:
        print(f"cannot read {problem.filename}: {problem.strerror}", file=sys.stderr)
        return 2
    first = sum(hello.index == 0 for hello in found)
    print(f"{len(found)} hellos of {first} connections; {len(joined)} requests, "
          f"{sum(row.correlated for row in joined)} correlated")
    equal = all([tally.print(title) for title, tally in tallies.items()])
    print("equal" if equal else "DIFFERENT")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
