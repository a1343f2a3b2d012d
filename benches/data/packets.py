"""Captures for the sensor's benchmarks: many hellos, a flood of SYNs, a flood of hellos. Standard library only.

Usage: packets.py mix|plain|syns|hellos|initials FILE [N]

`mix` is N connections (31370) of three packets: a hello of about 1.8 kB in two segments, as current browsers send it,
and a server's segment that acknowledges it and fills up to 96 MB (one connection in 69 has a SYN); each connection has another client address. `syns` is N SYNs (10
million) from distinct addresses, `hellos` N distinct hellos (1 million); in both, 100 connections are
open before the flood and send their hellos after it, with the SNI `established.example`. `initials` is the same with N QUIC Initial
packets (1 million) from distinct addresses: in turn one with a distinct connection ID whose content is noise, and the first of two packets
of a hello (fuzz/seeds/quic/quic.pcap) whose second never comes. `plain` is N segments (100,000) of 1000 connections to port 443 that are no TLS.
"""

import random
import struct
import sys
from pathlib import Path

SEED = Path(__file__).resolve().parents[2] / "operators/client_hello/fuzz/seeds/quic/quic.pcap"


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">HH", kind, len(content)) + content


def hello(name: bytes, rng: random.Random, share: int = 1216, more: bytes = b"") -> bytes:
    """A record with a ClientHello like a browser's; `share` is the length of its post-quantum key share."""
    ciphers = struct.pack(">16H", 0x6A6A, 0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8,
                          0xC013, 0xC014, 0x9C, 0x9D, 0x2F, 0x35)
    shares = struct.pack(">HH", 0x11EC, share) + rng.randbytes(share) + struct.pack(">HH", 29, 32) + rng.randbytes(32)
    extensions = b"".join([
        extension(0x2A2A, b""),
        extension(0, struct.pack(">HBH", len(name) + 3, 0, len(name)) + name),
        extension(0x17, b""), extension(0xFF01, b"\0"), extension(10, bytes.fromhex("00083a3a11ec001d0017")),
        extension(11, b"\1\0"), extension(0x23, b""), extension(0x10, b"\0\x0c\2h2\x08http/1.1"),
        extension(5, b"\1\0\0\0\0"), extension(13, bytes.fromhex("0010040308040401050308050501080606 01".replace(" ", ""))),
        extension(0x12, b""), extension(0x33, struct.pack(">H", len(shares)) + shares), extension(0x2D, b"\1\1"),
        extension(0x2B, bytes.fromhex("068a8a03040303")), extension(0x1B, b"\2\0\2"), extension(0xFE0D, bytes(217)), more,
    ])
    body = b"\3\3" + rng.randbytes(32) + b"\x20" + rng.randbytes(32) + struct.pack(">H", len(ciphers)) + ciphers
    body += b"\1\0" + struct.pack(">H", len(extensions)) + extensions
    return b"\x16\3\1" + struct.pack(">H", len(body) + 4) + b"\1" + len(body).to_bytes(3, "big") + body


SYN_OPTIONS = bytes.fromhex("020405b40402080a01020304000000000103030a")
OPTIONS = bytes.fromhex("0101080a0102030400000000")


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", total ^ 0xFFFF)


def frame(src: int, sport: int, dst: int, dport: int, seq: int, flags: int, payload: bytes = b"", ack: int = 1) -> bytes:
    options = SYN_OPTIONS if flags == 2 else OPTIONS
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 40 + len(options) + len(payload), sport, 0x4000, 57, 6, 0, src, dst)
    tcp = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, (5 + len(options) // 4) << 4, flags, 64240, 0, 0)
    tcp += options + payload
    tcp_sum = checksum(struct.pack(">IIHH", src, dst, 6, len(tcp)) + tcp)
    return b"\2" * 12 + b"\x08\0" + ip[:10] + checksum(ip) + ip[12:] + tcp[:16] + tcp_sum + tcp[18:]


def datagram(src: int, sport: int, dst: int, dport: int, payload: bytes) -> bytes:
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 28 + len(payload), sport, 0x4000, 57, 17, 0, src, dst)
    return b"\2" * 12 + b"\x08\0" + ip + struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def initial(number: int, noise: bytes) -> bytes:
    """A QUIC version 1 Initial with an own connection ID, which its keys do not open."""
    head = b"\xc3\0\0\0\1\x08" + struct.pack(">Q", number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) + b"\0\0"
    return head + struct.pack(">H", 0x4000 | len(noise)) + noise


def half_a_hello() -> bytes:
    """The UDP payload of the seed's first packet, which begins with an IPv4 header."""
    capture = SEED.read_bytes()
    (length,) = struct.unpack_from("<I", capture, 32)
    return capture[40 + 20 + 8 : 40 + length]


class Pcap:
    """A pcap file whose packets are `step` microseconds apart."""

    def __init__(self, path: str, step: int) -> None:
        self.file, self.time, self.step = open(path, "wb", buffering=1 << 20), 1_700_000_000_000_000, step
        self.file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))

    def add(self, data: bytes) -> None:
        self.time += self.step
        seconds, rest = divmod(self.time, 1_000_000)
        self.file.write(struct.pack("<IIII", seconds, rest, len(data), len(data)) + data)


SERVER = 0xC0000201  # 192.0.2.1
CLIENTS = 0x0A000000  # 10.0.0.0/8


def mix(path: str, count: int) -> None:
    rng, out = random.Random(1), Pcap(path, 100)
    hellos = [hello(b"host-%d.example" % n, rng) for n in range(500)]
    answer = rng.randbytes(1080)
    for n in range(count):
        client, seq, data = CLIENTS + n, rng.getrandbits(32), hellos[n % len(hellos)]
        port = 1024 + n % 60000
        first = (seq + 1) & 0xFFFFFFFF
        # Nearly all SYNs are left out, so that there are about 94,570 packets in all.
        if n % 69 == 0:
            out.add(frame(client, port, SERVER, 443, seq, 2))
        out.add(frame(client, port, SERVER, 443, first, 0x18, data[:1400]))
        out.add(frame(client, port, SERVER, 443, (first + 1400) & 0xFFFFFFFF, 0x18, data[1400:]))
        out.add(frame(SERVER, 443, client, port, 1, 0x18, answer, (first + len(data)) & 0xFFFFFFFF))
    out.file.close()


def plain(path: str, count: int) -> None:
    rng, out = random.Random(1), Pcap(path, 10)
    text = b"GET / HTTP/1.1\r\nHost: " + b"x" * 1000
    for n in range(count):
        client = CLIENTS + n % 1000
        out.add(frame(client, 5000, SERVER, 443, rng.getrandbits(32), 0x18, text))
    out.file.close()


def flood(path: str, count: int, kind: str) -> None:
    rng, out = random.Random(1), Pcap(path, 1)
    established = range(0xC6336401, 0xC6336401 + 100)  # 198.51.100.0/24
    for client in established:
        out.add(frame(client, 5000, SERVER, 443, 7, 2))
        out.add(frame(client, 5000, SERVER, 443, 8, 0x10))
    template = hello(b"00000000.flood.example", rng, share=32)
    name = template.index(b"00000000")
    cipher = template.index(b"\x13\x01\x13\x02")
    half, noise = half_a_hello(), rng.randbytes(1180)
    for n in range(count):
        client, port = CLIENTS + n % (1 << 24), 1024 + n % 60000
        if kind == "initials":
            out.add(datagram(client, port, SERVER, 443, half if n % 2 else initial(n + 1, noise)))
        elif kind == "syns":
            out.add(frame(client, port, SERVER, 443, n * 7919 & 0xFFFFFFFF, 2))
        else:
            data = bytearray(template)
            data[name:name + 8] = b"%08x" % n
            data[cipher:cipher + 4] = struct.pack(">HH", n & 0xFFF | 0xB000, n >> 12 | 0xD000)
            out.add(frame(client, port, SERVER, 443, 8, 0x18, bytes(data)))
    for client in established:
        data = hello(b"established.example", rng)
        out.add(frame(client, 5000, SERVER, 443, 8 + 1400, 0x18, data[1400:]))
        out.add(frame(client, 5000, SERVER, 443, 8, 0x18, data[:1400]))
    out.file.close()


if __name__ == "__main__":
    kind, path, *rest = sys.argv[1:]
    default = {"mix": 31_370, "syns": 10_000_000, "hellos": 1_000_000, "initials": 1_000_000, "plain": 100_000}[kind]
    count = int(rest[0]) if rest else default
    if kind in ("mix", "plain"):
        {"mix": mix, "plain": plain}[kind](path, count)
    else:
        flood(path, count, kind)
