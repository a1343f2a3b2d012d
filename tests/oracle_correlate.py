"""The join's rules by exhaustive search, and the judgement of late rows: what operators/src/correlate must come to.

Rows are dicts as the sensors write them, in the order in which a source reads them.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.traffic import HELLO, IDS, REQUEST, SECOND, event_time


@dataclass(frozen=True)
class Rules:
    """Options of `correlate`, times in ns."""

    window: int = 10 * SECOND
    keepalive_ttl: int = 120 * SECOND
    tolerance: int = SECOND // 2
    max_age: int = 3600 * SECOND
    longest_request: int = 900 * SECOND
    one_to_one: bool = False
    connection: bool = False  # key: connection
    exclude: tuple[str, ...] = ()  # exclude_source_ips


# Two sensors' sightings of one hello are at most this far apart, and alike in these columns.
SIGHTINGS = 2 * SECOND
ALIKE = ("ja4", "ja3", "ja3_hash", "tls_sni", "tls_alpn")


# A request's row: the conn_id of its hello or None, and its number on the connection, 0 without a hello.
Result = tuple[str | None, int]


@dataclass
class _Hello:
    time: int
    row: dict
    last: int | None = None
    matches: int = 0

    def is_seen_again(self, row: dict) -> bool:
        """Whether a later row is another sensor's sighting. It need not be asked whether this hello still is held: windows
        are longer than what two sightings are apart.
        """
        return (row["timestamp"] - self.time <= SIGHTINGS and row["sensor_id"] != self.row["sensor_id"]
                and all(row.get(name) == self.row.get(name) for name in ALIKE))

    def can_have(self, time: int, end: int, rules: Rules) -> bool:
        """Whether a request from `time` to `end` may be given this hello, were it the only one."""
        if rules.one_to_one and self.matches:
            return False
        if end > self.alive_until(rules) + rules.longest_request:
            return False
        return self.time - time <= rules.tolerance if self.time > time else self.alive_until(rules) >= time

    def alive_until(self, rules: Rules) -> int:
        """The last moment at which a request may begin."""
        kept = self.time if self.last is None else self.last + rules.keepalive_ttl
        return min(max(self.time + rules.window, kept), self.time + rules.max_age)


def correlate(hellos: Iterable[dict], requests: Iterable[dict], rules: Rules = Rules()) -> dict[str, Result]:
    """The result of each request by its id; all rows count, so late ones must have been taken out."""
    offered: dict[tuple, list[_Hello]] = defaultdict(list)
    # Sorting is stable: of two at the same time, the one that was read later stands later.
    for row in sorted(remaining(hellos, rules), key=lambda row: row["timestamp"]):
        of_key = offered[key(row, HELLO, rules)]
        if not any(hello.is_seen_again(row) for hello in of_key):
            of_key.append(_Hello(row["timestamp"], row))
    results = {}
    for row in sorted(remaining(requests, rules), key=event_time):
        time, end = row["timestamp"], event_time(row)
        usable = [hello for hello in offered.get(key(row, REQUEST, rules), ()) if hello.can_have(time, end, rules)]
        before = [hello for hello in usable if hello.time <= time]
        found = before[-1] if before else usable[0] if usable else None
        if found:
            found.last = end
            found.matches += 1
        results[row[IDS[REQUEST]]] = (found.row[IDS[HELLO]], found.matches) if found else (None, 0)
    return results


def remaining(rows: Iterable[dict], rules: Rules) -> list[dict]:
    """Rows whose client is not excluded."""
    networks = [ipaddress.ip_network(network) for network in rules.exclude]
    return [row for row in rows
            if not any(ipaddress.ip_address(canonical(row["src_ip"])) in network for network in networks)]


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
        time = event_time(row)
        (late if greatest is not None and time < greatest - lateness else on_time).append(row)
        greatest = time if greatest is None else max(greatest, time)
    return on_time, late
