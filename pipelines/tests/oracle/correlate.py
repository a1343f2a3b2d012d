"""The join of requests and ClientHellos, recomputed request by request from whole files.

A request belongs to the latest hello of its (src_ip, src_port) that is not after its begin and was alive then; failing
that, to the earliest one that comes at most EMIT_AFTER later (the two clocks differ). A hello is alive for WINDOW, and for
KEEPALIVE_TTL after the end of each request that it was given to. Of a connection only the first hello counts.

Usage: correlate.py --pcap CAPTURE --log REQUESTS     one JSON object a line
"""

import argparse
import ipaddress
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from hellos import Hello, hellos

SECOND = 10**9
WINDOW = 10 * SECOND
KEEPALIVE_TTL = 120 * SECOND
EMIT_AFTER = SECOND // 2


@dataclass
class Request:
    """One line of the log: its number from 0, when it began and ended in nanoseconds, its client's end, and the line itself."""

    seq: int
    begin: int
    time: int
    src_ip: str
    src_port: int
    line: dict


@dataclass
class Joined:
    """A request with its hello, or none."""

    request: Request
    hello: Hello | None
    keepalives: int

    @property
    def correlated(self) -> int:
        """1 with a hello, else 0."""
        return int(self.hello is not None)


def join(requests: Iterable[Request], offered: Iterable[Hello]) -> list[Joined]:
    """One row a request, in order of event time, then line number."""
    by_client: dict[tuple[str, int], list[Hello]] = defaultdict(list)
    for hello in offered:
        if hello.index == 0:
            by_client[hello.src_ip, hello.src_port].append(hello)
    for group in by_client.values():
        group.sort(key=lambda hello: hello.time)
    last_match: dict[int, int] = {}
    given: dict[int, int] = defaultdict(int)
    rows = []
    for request in sorted(requests, key=lambda request: (request.time, request.seq)):
        chosen = None
        for hello in by_client.get((request.src_ip, request.src_port), ()):
            if hello.time <= request.begin:
                matched = last_match.get(id(hello))
                if hello.time + WINDOW >= request.begin or (
                    matched is not None and matched + KEEPALIVE_TTL >= request.begin
                ):
                    chosen = hello
            elif chosen is None and hello.time <= request.begin + EMIT_AFTER:
                chosen = hello
                break
        if chosen is not None:
            last_match[id(chosen)] = request.time
            given[id(chosen)] += 1
        rows.append(Joined(request, chosen, given[id(chosen)] if chosen is not None else 0))
    return rows


def requests(log: Path) -> Iterator[Request]:
    """The requests of a log; lines that are no JSON object are passed over."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        for number, text in enumerate(lines):
            try:
                line = json.loads(text)
                begin = begin_time(line)
                end = begin + line.get("duration_ms", 0) * SECOND // 1000
                yield Request(number, begin, end, canonical(line["src_ip"]), int(line["src_port"]), line)
            except (ValueError, KeyError, TypeError):
                continue


def begin_time(line: dict) -> int:
    """`timestamp` in nanoseconds, else the ISO 8601 `time`."""
    if "timestamp" in line:
        return int(line["timestamp"])
    return iso_nanoseconds(line["time"])


def iso_nanoseconds(text: str) -> int:
    """An RFC 3339 time as nanoseconds since 1970; datetime itself has only microseconds."""
    whole, dot, rest = text.partition(".")
    digits = ""
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        whole += rest[len(digits):]
    seconds = int(datetime.fromisoformat(whole.replace("Z", "+00:00")).timestamp())
    return seconds * SECOND + int(digits.ljust(9, "0")[:9] or 0)


def canonical(address: str) -> str:
    """An address as text, an IPv4-mapped one as IPv4."""
    parsed = ipaddress.ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def main() -> None:
    """Prints the joined rows."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pcap", type=Path, required=True)
    options.add_argument("--log", type=Path, required=True)
    given = options.parse_args()
    for row in join(requests(given.log), hellos(given.pcap)):
        print(json.dumps({
            "seq": row.request.seq, "correlated": row.correlated, "keepalives": row.keepalives,
            "hello": asdict(row.hello) if row.hello else None,
        }))


if __name__ == "__main__":
    main()
