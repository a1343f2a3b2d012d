"""The join's rules by exhaustive search, and the judgement of late rows: what operators/src/correlate must come to.

Rows are dicts as the sensors write them, in the order in which a source reads them.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.traffic import HELLO, IDS, REQUEST, SECOND


@dataclass(frozen=True)
class Rules:
    """Options of `correlate`, times in ns."""

    window: int = 10 * SECOND
    keepalive_ttl: int = 120 * SECOND
    tolerance: int = SECOND // 2
    max_age: int = 3600 * SECOND
    one_to_one: bool = False
    connection: bool = False  # key: connection


# A request's row: the conn_id of its hello or None, and its number on the connection, 0 without a hello.
Result = tuple[str | None, int]


@dataclass
class _Hello:
    time: int
    conn_id: str
    last: int | None = None
    matches: int = 0

    def can_have(self, time: int, rules: Rules) -> bool:
        """Whether a request at `time` may be given this hello, were it the only one."""
        if rules.one_to_one and self.matches:
            return False
        if self.time > time:
            return self.time - time <= rules.tolerance
        fresh = time - self.time <= rules.window
        kept = self.last is not None and time - self.last <= rules.keepalive_ttl
        return (fresh or kept) and time - self.time <= rules.max_age


def correlate(hellos: Iterable[dict], requests: Iterable[dict], rules: Rules = Rules()) -> dict[str, Result]:
    """The result of each request by its id; all rows count, so late ones must have been taken out."""
    offered: dict[tuple, list[_Hello]] = defaultdict(list)
    # Sorting is stable: of two at the same time, the one that was read later stands later.
    for row in sorted(hellos, key=lambda row: row["timestamp"]):
        offered[key(row, HELLO, rules)].append(_Hello(row["timestamp"], row[IDS[HELLO]]))
    results = {}
    for row in sorted(requests, key=lambda row: row["timestamp"]):
        time = row["timestamp"]
        usable = [hello for hello in offered.get(key(row, REQUEST, rules), ()) if hello.can_have(time, rules)]
        before = [hello for hello in usable if hello.time <= time]
        found = before[-1] if before else usable[0] if usable else None
        if found:
            found.last = time
            found.matches += 1
        results[row[IDS[REQUEST]]] = (found.conn_id, found.matches) if found else (None, 0)
    return results


def key(row: dict, stream: str, rules: Rules) -> tuple:
    """The connection: the client's end, the transport, and with `key: connection` the server's end."""
    ends = [canonical(row["src_ip"]), row["src_port"]]
    if rules.connection:
        ends += [canonical(row["dst_ip"]), row["dst_port"]]
    return (transport(row, stream), *ends)


def transport(row: dict, stream: str) -> str:
    """HTTP/3 and QUIC's hellos are udp, all others tcp."""
    udp = row.get("ja4", "").startswith("q") if stream == HELLO else row.get("http_version", "").startswith("HTTP/3")
    return "udp" if udp else "tcp"


def canonical(address: str) -> str:
    """An address as text, an IPv4-mapped one as IPv4."""
    parsed = ipaddress.ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def judged(rows: Sequence[dict], lateness: int) -> tuple[list[dict], list[dict]]:
    """Rows of one source that are on time, and those that are late: before the greatest time read less the lateness."""
    on_time, late = [], []
    greatest = None
    for row in rows:
        time = row["timestamp"]
        (late if greatest is not None and time < greatest - lateness else on_time).append(row)
        greatest = time if greatest is None else max(greatest, time)
    return on_time, late
