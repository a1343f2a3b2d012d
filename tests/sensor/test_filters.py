"""Whose hellos become rows: clients, servers, ports, IPv6 extension headers and fragments, in pipelines over a capture."""

import importlib.util
import ipaddress
import random
import struct
import unittest
from collections.abc import Iterable

from tests.support import OK, REFUSED, ROOT, Case, lines

_spec = importlib.util.spec_from_file_location("packets", ROOT / "benches/data/packets.py")
packets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(packets)

CLIENTS = ["192.0.2.7", "192.0.2.200", "198.51.100.9", "203.0.113.1"]
SERVERS = ["10.1.0.1", "10.2.0.1"]
CLIENTS6, SERVER6 = ["2001:db8::7", "2001:db8:1::7"], "2001:db8:ffff::1"
TCP, HOP_BY_HOP, FRAGMENT, DESTINATION = 6, 0, 44, 60


def hello(name: str) -> bytes:
    return packets.hello(name.encode(), random.Random(1), share=32)


def segment(sport: int, dport: int, payload: bytes) -> bytes:
    return struct.pack(">HHIIBBHHH", sport, dport, 1, 1, 5 << 4, 0x18, 64240, 0, 0) + payload


def frame6(src: str, dst: str, following: int, rest: bytes) -> bytes:
    addresses = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed
    return b"\2" * 12 + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(rest), following, 64) + addresses + rest


def number(address: str) -> int:
    return int(ipaddress.ip_address(address))


class Filters(Case):
    def capture(self, frames: Iterable[bytes]) -> None:
        out = packets.Pcap(str(self.directory / "in.pcap"), 1000)
        for data in frames:
            out.add(data)
        out.file.close()

    def run_with(self, hellos: str = "", source: str = "ports: [443]"):
        pipeline = self.write("p.yaml", f"""\
name: filters
nodes:
  - {{ id: packets, kind: source.pcap, file: in.pcap, {source} }}
  - {{ id: hellos, kind: tls.client_hello, from: packets{hellos} }}
  - {{ id: out, kind: sink.jsonl, from: hellos, path: out.jsonl }}
""")
        return self.engine("run", pipeline)

    def found(self, hellos: str = "", source: str = "ports: [443]") -> tuple[list[dict], str]:
        run = self.run_with(hellos, source)
        self.assert_exit(run, OK)
        return lines(self.directory / "out.jsonl"), run.stderr

    def test_clients_and_servers(self) -> None:
        """Every combination of lists, beside Python's own arithmetic of networks."""
        pairs = [(client, server) for client in CLIENTS for server in SERVERS]
        pairs6 = [(client, SERVER6) for client in CLIENTS6]
        self.capture(
            [packets.frame(number(c), 5000, number(s), 443, 1, 0x18, hello("v4.example")) for c, s in pairs]
            + [frame6(c, s, TCP, segment(5000, 443, hello("v6.example"))) for c, s in pairs6])
        pairs += pairs6
        cases = [
            ([], [], []),
            (["192.0.2.0/24"], [], []),
            (["192.0.2.7"], [], []),
            ([], ["192.0.2.0/25", "203.0.113.1"], []),
            (["192.0.2.0/24", "2001:db8::/48"], ["192.0.2.200"], []),
            ([], [], ["10.1.0.0/16"]),
            (["0.0.0.0/0"], ["198.51.100.0/24"], ["10.2.0.1"]),
            ([], ["2001:db8:1::/48"], ["2001:db8:ffff::1", "10.1.0.1"]),
            (["255.255.255.255"], [], []),
        ]
        for include, exclude, local in cases:
            with self.subTest(include=include, exclude=exclude, local=local):
                def among(address: str, networks: list[str]) -> bool:
                    one = ipaddress.ip_address(address)
                    return any(one in network for network in map(ipaddress.ip_network, networks))
                wanted = [(c, s) for c, s in pairs if (not include or among(c, include)) and not among(c, exclude)]
                excluded = len(pairs) - len(wanted)
                rows = [(c, s) for c, s in wanted if not local or among(s, local)]
                options = "".join(f", {name}: {values!r}" for name, values in (
                    ("include_sources", include), ("exclude_sources", exclude), ("local_ips", local)) if values)
                found, said = self.found(options)
                self.assert_same_rows([(row["src_ip"], row["dst_ip"]) for row in found], rows)
                for name, count in (("excluded_sources", excluded), ("other_destinations", len(wanted) - len(rows))):
                    self.assertEqual(f"{name} {count}" in said, count > 0, said)

    def test_what_is_no_network_is_refused_with_its_place(self) -> None:
        self.capture([])
        for text in ("192.0.2.0/33", "192.0.2", "example.org", "2001:db8::/129"):
            with self.subTest(text):
                run = self.run_with(f", exclude_sources: ['{text}']")
                self.assert_exit(run, REFUSED, text, "p.yaml:4:")

    def test_ipv6_extension_headers_and_fragments_pass_the_port_filter_of_the_source(self) -> None:
        """The ports behind them are looked at where the headers have been read."""
        padding = bytes([TCP, 0, 1, 4, 0, 0, 0, 0])
        frames = []
        for port in (443, 8080):
            data = segment(6000, port, hello(f"hop.example.{port}"))
            frames.append(frame6("2001:db8::1", SERVER6, HOP_BY_HOP, padding + data))
            data = segment(6001, port, hello(f"both.example.{port}"))
            frames.append(frame6("2001:db8::1", SERVER6, HOP_BY_HOP, bytes([DESTINATION]) + padding[1:] + padding + data))
            data = segment(6002, port, hello(f"parts.example.{port}"))
            for at in (320, 0, 160):
                more = int(at < 320)
                part = data[at:at + 160] if more else data[at:]
                frames.append(frame6("2001:db8::1", SERVER6, FRAGMENT, struct.pack(">BBHI", TCP, 0, at | more, port) + part))
        frames.append(frame6("2001:db8::1", SERVER6, TCP, segment(6003, 8080, hello("plain.example.8080"))))
        self.capture(frames)
        found, _ = self.found(", ports: [443]")
        self.assertEqual(sorted(row["tls_sni"] for row in found), ["both.example.443", "hop.example.443", "parts.example.443"])
        # Without the decoder's own ports, what the first filter cannot judge is there too.
        found, _ = self.found()
        self.assertEqual(len(found), 6)


if __name__ == "__main__":
    unittest.main()
