"""Packets out of order, as from several queues or interfaces: within `lateness` the rows are those of the ordered capture.

The recording is made dense: its connections are behind one address with few ports, which are used again after some ms;
the server's segments, which the recording leaves out, are made up; and a third of the hellos come in two segments.
Then the order of the packets is changed, and never their times.
"""

import ipaddress
import itertools
import json
import random
import re
import struct
import unittest
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache, cached_property

from tests.support import OK, RECORDING, Case, lines, packets

MS, SECOND = 10**6, 10**9
SERVERS = (443, 8443)
FIN, SYN, RST, ACK = 1, 2, 4, 16
COPIES, PORTS, SQUEEZE, CUT = 4, 150, 20, 300

# What keeps its order: nothing, each direction of a connection, each connection, and all packets of a direction, of which
# one is late as a whole.
HOWS = ("packet", "direction", "connection", "queues")

PIPELINE = """\
name: order
nodes:
  - {{ id: packets, kind: source.pcap, file: {capture}, ports: [443, 8443], lateness: {lateness} }}
  - {{ id: hellos, kind: tls.client_hello, from: packets }}
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }} }}
  - {{ id: hellos_out, kind: sink.jsonl, from: hellos, path: {out}/hellos.jsonl }}
  - {{ id: rows_out, kind: sink.jsonl, from: correlated, path: {out}/rows.jsonl }}
  - {{ id: late_out, kind: sink.jsonl, from: correlated.late, path: {out}/late.jsonl }}
"""


@dataclass(frozen=True)
class Segment:
    """A TCP segment over Ethernet and IPv4 or IPv6 without extension headers."""

    time: int  # ns
    data: bytes

    @cached_property
    def v4(self) -> bool:
        return self.data[14] >> 4 == 4

    @cached_property
    def tcp(self) -> int:
        return 14 + ((self.data[14] & 15) * 4 if self.v4 else 40)

    @cached_property
    def payload(self) -> bytes:
        return self.data[self.tcp + (self.data[self.tcp + 12] >> 4) * 4 : self.end]

    @cached_property
    def end(self) -> int:
        return 14 + struct.unpack_from(">H", self.data, 16)[0] if self.v4 else 54 + struct.unpack_from(">H", self.data, 18)[0]

    @cached_property
    def flow(self) -> tuple[bytes, int, bytes, int]:
        """Source and destination with their ports."""
        at, size = (26, 4) if self.v4 else (22, 16)
        ports = struct.unpack_from(">HH", self.data, self.tcp)
        return self.data[at : at + size], ports[0], self.data[at + size : at + 2 * size], ports[1]

    @cached_property
    def forth(self) -> bool:
        """From the client."""
        return self.flow[3] in SERVERS

    @cached_property
    def connection(self) -> tuple[bytes, int, bytes, int]:
        """The same for both directions, the client first."""
        return self.flow if self.forth else (*self.flow[2:], *self.flow[:2])

    @property
    def flags(self) -> int:
        return self.data[self.tcp + 13]

    @property
    def seq(self) -> int:
        return struct.unpack_from(">I", self.data, self.tcp + 4)[0]

    @property
    def ack(self) -> int:
        return struct.unpack_from(">I", self.data, self.tcp + 8)[0]

    def like(self, time: int, seq: int, payload: bytes, ack: int | None = None, flags: int | None = None) -> "Segment":
        """Another segment of this direction."""
        head = self.data[self.tcp : self.end - len(self.payload)] if flags is None else self.data[self.tcp : self.tcp + 12] + bytes(8)
        head = bytearray(head)
        struct.pack_into(">I", head, 4, seq % 2**32)
        if ack is not None:
            struct.pack_into(">I", head, 8, ack % 2**32)
        if flags is not None:
            struct.pack_into(">BBH", head, 12, 0x50, flags, 500)
        ip = bytearray(self.data[14 : self.tcp])
        size = len(head) + len(payload)
        struct.pack_into(">H", ip, 2 if self.v4 else 4, size + (len(ip) if self.v4 else 0))
        return Segment(time, self.data[:14] + bytes(ip) + bytes(head) + payload).summed()

    def moved(self, client: bytes, port: int, shift: int, forth: int, back: int) -> "Segment":
        """For another client and time; the sequence numbers of client and server moved."""
        data = bytearray(self.data)
        address = (26 if self.v4 else 22) + (0 if self.forth else len(client))
        data[address : address + len(client)] = client
        struct.pack_into(">H", data, self.tcp + (0 if self.forth else 2), port)
        own, other = (forth, back) if self.forth else (back, forth)
        struct.pack_into(">I", data, self.tcp + 4, (self.seq + own) % 2**32)
        if self.flags & ACK:
            struct.pack_into(">I", data, self.tcp + 8, (self.ack + other) % 2**32)
        return Segment(self.time + shift, bytes(data)).summed()

    def summed(self) -> "Segment":
        """With the right checksums."""
        data = bytearray(self.data)
        if self.v4:
            data[24:26] = bytes(2)
            data[24:26] = checksum(bytes(data[14 : self.tcp]))
        data[self.tcp + 16 : self.tcp + 18] = bytes(2)
        pseudo = self.flow[0] + self.flow[2] + struct.pack(">II", self.end - self.tcp, 6)
        data[self.tcp + 16 : self.tcp + 18] = checksum(pseudo + bytes(data[self.tcp : self.end]))
        return replace(self, data=bytes(data))


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total = int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
    return struct.pack(">H", 0xFFFF - total or 0xFFFF)


def read(capture: bytes) -> list[Segment]:
    """The TCP segments of a pcap file of microseconds."""
    found = []
    for header, data in packets(capture):
        seconds, micros, _, _ = struct.unpack("<IIII", header)
        is_tcp = data[12:14] == b"\x08\0" and data[23] == 6 or data[12:14] == b"\x86\xdd" and data[20] == 6
        found += [Segment(seconds * SECOND + micros * 1000, data)] if is_tcp else []
    return found


def pcap(segments: list[Segment]) -> bytes:
    """A pcap file of nanoseconds."""
    records = [struct.pack("<IIII", s.time // SECOND, s.time % SECOND, len(s.data), len(s.data)) + s.data for s in segments]
    return struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1) + b"".join(records)


def connections(segments: list[Segment]) -> list[list[Segment]]:
    """The segments of each connection; a client's SYN begins one."""
    known: dict[tuple, list[Segment]] = {}
    found = []
    for segment in segments:
        begins = segment.forth and segment.flags & (SYN | ACK) == SYN
        if segment.connection not in known or begins and segment.seq != known[segment.connection][0].seq:
            known[segment.connection] = []
            found.append(known[segment.connection])
        known[segment.connection].append(segment)
    return found


def both_sides(connection: list[Segment], rng: random.Random) -> list[Segment]:
    """Adds the server's segments: an ACK for each of the client's, and data for what the client acknowledges."""
    whole, server, acked, sent = [], None, None, False
    for segment in connection:
        if not segment.forth:
            if segment.flags & SYN:
                server, acked = segment, segment.seq + 1
        elif server and acked and segment.flags & ACK and not segment.flags & RST:
            size = (segment.ack - acked) % 2**32
            if 0 < size < 1 << 20:
                start = b"\x17\x03\x03\x01\0" if sent else b"\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03"
                data = (start + rng.randbytes(size))[:size]
                pieces = [(at, data[at : at + 1448]) for at in range(0, size, 1448)]
                for nth, (at, piece) in enumerate(pieces):
                    time = max(segment.time - 40_000 - 3_000 * (len(pieces) - nth), whole[-1].time + 1)
                    whole.append(server.like(min(time, segment.time), acked + at, piece, segment.seq, ACK | 8))
                acked, sent = segment.ack, True
        whole.append(segment)
        if segment.forth and segment.payload and server and acked:
            whole.append(server.like(segment.time + 20_000, acked, b"", segment.seq + len(segment.payload), ACK))
    return sorted(whole, key=lambda segment: segment.time)


def cut(connection: list[Segment]) -> list[Segment]:
    """The client's first data in two segments, as a large hello comes."""
    at = next((at for at, s in enumerate(connection) if s.forth and len(s.payload) > CUT), None)
    if at is None:
        return connection
    first = connection[at]
    halves = [first.like(first.time, first.seq, first.payload[:CUT]),
              first.like(first.time + 3_000, first.seq + CUT, first.payload[CUT:])]
    return connection[:at] + halves + connection[at + 1 :]


@cache
def dense(seed: int = 1) -> tuple[list[Segment], list[dict]]:
    """The recording COPIES times behind one address of each family; its requests as well. Initial sequence numbers grow
    with time as Linux's do, 64 ns each."""
    rng = random.Random(seed)
    recorded = connections(read((RECORDING / "capture.pcap").read_bytes()))
    begin = recorded[0][0].time
    requests: dict[int, list[dict]] = {}
    for request in lines(RECORDING / "requests.jsonl"):
        name = (ipaddress.ip_address(request["src_ip"]).packed, request["src_port"],
                ipaddress.ip_address(request["dst_ip"]).packed, request["dst_port"])
        own = [nth for nth, c in enumerate(recorded) if c[0].connection == name and c[0].time <= request["timestamp"]]
        requests.setdefault(own[-1] if own else -1, []).append(request)
    starts = sorted((begin + (c[0].time - begin) // SQUEEZE + rng.randrange(20 * MS), nth)
                    for _ in range(COPIES) for nth, c in enumerate(recorded))
    segments, log, free = [], [], {}
    for start, nth in starts:
        connection = recorded[nth]
        client = bytes([198, 18, 0, 1]) if connection[0].v4 else ipaddress.ip_address("2001:db8:ffff::1").packed
        ports = free.setdefault(client, dict.fromkeys(range(20_000, 20_000 + PORTS), 0))
        port = min(ports, key=ports.get)
        start = max(start, ports[port] + 2 * MS + rng.randrange(2 * MS))
        shift = start - connection[0].time
        forth = hash((client[0], port, connection[0].connection[3])) + start // 64 - connection[0].seq
        whole = both_sides(cut(connection) if nth % 3 == 0 else connection, rng)
        back = rng.getrandbits(32)
        whole = [segment.moved(client, port, shift, forth, back) for segment in whole]
        own = [{**request, "src_ip": str(ipaddress.ip_address(client)), "src_port": port,
                "timestamp": request["timestamp"] + shift} for request in requests.get(nth, [])]
        segments += whole
        log += own
        ports[port] = max([s.time for s in whole] + [request["timestamp"] for request in own])
    log.sort(key=lambda request: request["timestamp"])
    for nth, request in enumerate(log):
        del request["time"]
        request["header_X-Request-Id"] = str(nth)
    return sorted(segments, key=lambda segment: segment.time), log


def shuffled(segments: list[Segment], how: str, within: int, seed: int) -> list[Segment]:
    """In the order of time and up to `within` ns more."""
    rng = random.Random(f"{how} {within} {seed}")
    if how == "queues":
        slow = rng.random() < 0.5
        return sorted(segments, key=lambda segment: segment.time + within * (segment.forth == slow))
    group = {"packet": id, "direction": lambda s: s.flow, "connection": lambda s: s.connection}[how]
    last: dict[object, int] = {}
    keys = []
    for segment in segments:
        name = group(segment)
        last[name] = max(segment.time + rng.randint(0, within), last.get(name, 0))
        keys.append(last[name])
    return [segments[at] for at in sorted(range(len(keys)), key=keys.__getitem__)]


def late(segments: list[Segment], lateness: int) -> set[int]:
    """Which segments, by position, are further than that behind the greatest time before them."""
    greatest = itertools.accumulate((segment.time for segment in segments), max)
    return {at for at, (segment, most) in enumerate(zip(segments, greatest)) if segment.time < most - lateness}


class Order(Case):
    def setUp(self) -> None:
        super().setUp()
        self.segments, log = dense()
        self.write("requests.jsonl", "".join(json.dumps(request) + "\n" for request in log))
        self.expected = self.rows(self.segments, "60s")

    def rows(self, segments: list[Segment], lateness: str) -> dict[str, Counter]:
        """What the pipeline makes of a capture: hellos, correlated rows, late ones. Positions in the capture are left out."""
        self.write("capture.pcap", pcap(segments))
        self.write("order.yaml", PIPELINE.format(capture="capture.pcap", lateness=lateness, out=self.directory))
        run = self.engine("run", self.directory / "order.yaml")
        self.assert_exit(run, OK)
        self.late_rows = int((re.search(r"late_rows ([\d,]+)", run.stderr) or [0, "0"])[1].replace(",", ""))
        def rows(name: str) -> Counter:
            return Counter(json.dumps({**row, "seq": None}) for row in lines(self.directory / f"{name}.jsonl"))
        return {name: rows(name) for name in ("hellos", "rows", "late")}

    def test_within_lateness_nothing_changes(self) -> None:
        requests = self.expected["rows"].total()
        matched = sum('"ja4"' in row for row in self.expected["rows"].elements())
        self.assertGreater(matched, requests * 0.95)
        cases = [(how, ms, f"{max(ms, 5)}ms") for how in HOWS for ms in (1, 5, 20, 100)]
        cases += [("connection", 40_000, "60s"), ("queues", 55_000, "60s")]
        for how, ms, lateness in cases:
            with self.subTest(how=how, ms=ms):
                got = self.rows(shuffled(self.segments, how, ms * MS, seed=ms), lateness)
                self.assertEqual(self.late_rows, 0)
                for name, rows in self.expected.items():
                    self.assert_same_rows(got[name], rows, f"{name}, {how} within {ms} ms")

    def test_beyond_lateness_it_is_counted(self) -> None:
        """A hello is lost only with a packet of its connection that is late, and each of these is counted."""
        for how in HOWS:
            with self.subTest(how=how):
                segments = shuffled(self.segments, how, 100 * MS, seed=7)
                got = self.rows(segments, "20ms")
                behind = late(segments, 20 * MS)
                self.assertEqual(self.late_rows, len(behind))
                touched = {(str(ipaddress.ip_address(s.connection[0])), s.connection[1]) for s in (segments[at] for at in behind)}
                lost = [json.loads(row) for row in (self.expected["hellos"] - got["hellos"]).elements()]
                self.assertLessEqual({(row["src_ip"], row["src_port"]) for row in lost}, touched)

    def test_files_by_fingerprint(self) -> None:
        def hellos(segments: list[Segment]) -> Counter:
            run = self.engine("fingerprint", "--reorder", "20", self.write("capture.pcap", pcap(segments)))
            self.assert_exit(run, OK)
            return Counter(run.stdout.splitlines())
        expected = hellos(self.segments)
        for how in HOWS:
            with self.subTest(how=how):
                self.assert_same_rows(hellos(shuffled(self.segments, how, 20 * MS, seed=3)), expected, how)


if __name__ == "__main__":
    unittest.main()
