"""Segments that a server drops beside those of a real client: how they are made, and which capture sees them."""

import itertools
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
DATA = PSH | ACK
PORT = 443
# Forged bytes of one segment.
SEGMENT = 1400
# Nobody has it.
STATION = bytes.fromhex("020000000099")
GET = b"GET /forged HTTP/1.1\r\nHost: forged.example\r\n\r\n"
# Bytes that no window reaches.
FAR = 1 << 24
# Of fragmented packets.
NUMBERS = itertools.count(1)


@dataclass
class Wire:
    """Where frames are sent: what the client's packets have there in front of the segment."""

    ethernet: bytes = b""
    ttl: int = 0


class Flow:
    """A connection of a client, as its frames tell."""

    def __init__(self, port: int) -> None:
        self.port = port
        # Sequence numbers of the first bytes, of the next ones, and the clocks of both sides.
        self.first = self.next = self.server_first = self.server_next = None
        self.clock = self.server_clock = 0
        self.addresses, self.syn_options, self.window = b"", b"", 0
        self.acknowledges = False
        # Frames forged, and when the first was.
        self.forged, self.begun = 0, 0.0

    def age(self) -> float:
        """Seconds since the first forged frame; 0 without one."""
        return time.monotonic() - self.begun if self.forged else 0.0

    def observe(self, frame: bytes) -> bool:
        """Learns from a frame, if it is of this connection."""
        found = parsed(frame)
        if not found or (found.source, found.target) not in ((self.port, PORT), (PORT, self.port)):
            return False
        end = found.seq + len(found.data) + (found.flags & SYN > 0) & 0xFFFFFFFF
        clocks = struct.unpack(">II", found.option(8) or bytes(8))
        if found.source == PORT:
            if found.flags & SYN:
                self.server_first = self.server_next = end
            elif self.server_next is not None and ahead(self.server_next, end) > 0:
                self.server_next = end
            self.server_clock = clocks[0]
            return True
        if found.flags & SYN:
            self.first = self.next = end
            self.syn_options, self.addresses = found.options, frame[26:34]
        elif self.next is not None and ahead(self.next, end) > 0:
            self.next = end
        self.acknowledges |= found.flags & (SYN | ACK) == ACK
        self.clock, self.window = clocks[0], found.window
        return True


@dataclass(frozen=True)
class Parsed:
    """A TCP segment over IPv4."""

    source: int
    target: int
    seq: int
    flags: int
    window: int
    options: bytes
    data: bytes

    def option(self, kind: int) -> bytes:
        """The content of the first option of a kind."""
        at = 0
        while at < len(self.options) and self.options[at] != 0:
            length = 1 if self.options[at] == 1 else self.options[at + 1]
            if self.options[at] == kind:
                return self.options[at + 2 : at + length]
            at += length
        return b""


def parsed(frame: bytes) -> Parsed | None:
    """The segment of an Ethernet frame, if it has one."""
    if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return None
    (total,) = struct.unpack_from(">H", frame, 16)
    tcp = frame[14 + (frame[14] & 15) * 4 : 14 + total]
    source, target, seq, _, offset, flags, window = struct.unpack_from(">HHIIBBH", tcp)
    head = (offset >> 4) * 4
    return Parsed(source, target, seq, flags, window, tcp[20:head], tcp[head:])


def ahead(number: int, other: int) -> int:
    """How far the other sequence number is ahead."""
    return ((other - number + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def total(data: bytes) -> int:
    """The sum of RFC 1071, not inverted."""
    data += bytes(len(data) % 2)
    number = sum(struct.unpack(f">{len(data) // 2}H", data))
    while number > 0xFFFF:
        number = (number & 0xFFFF) + (number >> 16)
    return number


@dataclass
class Forge:
    """Makes frames for a connection and a wire."""

    flow: Flow
    wire: Wire

    def segment(
        self, at: int, data: bytes, *, flags: int = DATA, ack: int = 0, clock: int = 0, window: int = 0, options: bytes = b"",
        checksum: Callable[[int, tuple[int, ...]], int] = lambda right, left: right, words: int = 0, **packet: object,
    ) -> bytes:
        """Data at this place of the client's stream, as the client would send it but for what is given: `ack`, `clock` and
        `window` are added to what is right, `options` follow the clocks, and `checksum` gets the right one and those that a host
        leaves to its card.
        """
        flow = self.flow
        if not flags & SYN:
            clocks = struct.pack(">II", flow.clock + clock & 0xFFFFFFFF, flow.server_clock)
            options = b"\x01\x01\x08\x0a" + clocks + options
        ack = flow.server_next + ack & 0xFFFFFFFF if flow.server_next is not None and not flags & SYN else 0
        words = words or 5 + len(options) // 4
        tcp = struct.pack(">HHIIBBHHH", flow.port, PORT, flow.first + at & 0xFFFFFFFF, ack, words << 4, flags,
                          flow.window + window & 0xFFFF, 0, 0) + options + data
        left = (0, *(total(flow.addresses + struct.pack(">HH", 6, length)) for length in (len(tcp), 0)))
        right = ~total(struct.pack(">H", left[1]) + tcp) & 0xFFFF
        return self.packet(tcp[:16] + struct.pack(">H", checksum(right, left)) + tcp[18:], **packet)

    def packet(
        self, payload: bytes, *, ttl: int = 0, route: bool = False, spoil: bool = False, longer: int = 0, station: bytes = b"",
        number: int = 0x4A00, fragment: int = 0x4000,
    ) -> bytes:
        """An IP packet in its frame. `spoil` for a wrong checksum of its header, `longer` is added to its length."""
        self.flow.begun = self.flow.begun or time.monotonic()
        self.flow.forged += 1
        # A list of hops to pass, of which none is left: a host that takes no such packets drops it all the same.
        options = b"\x83\x07\x08" + self.flow.addresses[4:] + b"\0" if route else b""
        length = 20 + len(options) + len(payload) + longer
        head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, length, number, fragment, ttl or self.wire.ttl, 6, 0)
        head += self.flow.addresses + options
        right = ~total(head) & 0xFFFF
        head = head[:10] + struct.pack(">H", wrong(right) if spoil else right) + head[12:]
        ethernet = self.wire.ethernet
        return (station + ethernet[6:] if station else ethernet) + head + payload

    def fragments(self, frame: bytes, *, overlap: int = 0, **packet: object) -> list[bytes]:
        """The packet of a frame in two fragments; the second begins `overlap` bytes before the first ends, with other ones."""
        tcp = frame[14 + (frame[14] & 15) * 4 :]
        cut = len(tcp) // 16 * 8
        packet["number"] = next(NUMBERS) & 0xFFFF
        second = bytes(byte ^ 0x55 for byte in tcp[cut - overlap : cut]) + tcp[cut:]
        return [self.packet(tcp[:cut], fragment=0x2000, **packet),
                self.packet(second, fragment=(cut - overlap) // 8, **packet)]


@dataclass(frozen=True)
class Kind:
    """A way to make a server drop a segment, as data at a place in the client's stream."""

    make: Callable[[Forge, int, bytes], list[bytes]]
    # It is sent behind the router, and only the server's end sees it.
    behind: bool = False
    # It passes the router.
    passes: bool = True
    # It leaves no doubt: "always", or where "checksums" are on the wire.
    certain: str = ""

    def seen_at(self, point: str) -> bool:
        """Whether the capture at the router or the server sees the segments."""
        return not self.behind if point == "router" else self.behind or self.passes


def one(**how: object) -> Callable[[Forge, int, bytes], list[bytes]]:
    """One segment."""
    return lambda forge, at, data: [forge.segment(at, data, **how)]


def wrong(right: int, left: tuple[int, ...] = (0,)) -> int:
    """A checksum that is neither right nor left to a card."""
    return next(number for number in range(right ^ 0x5A00, 1 << 17) if number & 0xFFFF not in (right, *left)) & 0xFFFF


KINDS = {
    "checksum": Kind(one(checksum=wrong), certain="checksums"),
    "checksum 0": Kind(one(checksum=lambda right, left: 0)),
    "checksum of the pseudo-header": Kind(one(checksum=lambda right, left: left[1])),
    "no ACK": Kind(one(flags=PSH), certain="always"),
    "no flag": Kind(one(flags=0), certain="always"),
    "FIN without ACK": Kind(one(flags=FIN | PSH), certain="always"),
    # In the window, but not the next byte: that is questioned (RFC 5961). The next byte would end the connection.
    "reset": Kind(lambda forge, at, data: [forge.segment(at + 1, data[1:], flags=RST | DATA)], certain="always"),
    "header of 16 bytes": Kind(one(words=4), certain="always"),
    # More than the server may have sent meanwhile.
    "acknowledges too much": Kind(one(ack=1 << 16)),
    # With the window that it expects, Linux may take the data before it looks at the acknowledgement.
    "acknowledges too little": Kind(one(ack=-1 << 24, window=1)),
    "TTL": Kind(one(ttl=1), passes=False),
    # The client's own, with data; that is always at the start.
    "SYN": Kind(lambda forge, _, data: [forge.segment(-1, data, flags=SYN, options=forge.flow.syn_options)]),
    # Questioned as well (RFC 5961), and then data that follows it.
    "other SYN": Kind(lambda forge, at, data: [
        forge.segment(FAR - 1, b"", flags=SYN, options=forge.flow.syn_options), forge.segment(FAR + at, data)]),
    "ahead of the window": Kind(lambda forge, at, data: [forge.segment(FAR + at, data)]),
    "behind the window": Kind(lambda forge, at, data: [forge.segment(at - FAR, data)]),
    # What is left of one with the same addresses and ports.
    "other connection": Kind(lambda forge, at, data: [forge.segment(at + (1 << 31) - FAR, data, ack=1 << 30, clock=-1 << 20)]),
    "old clock": Kind(one(clock=-1 << 20)),
    "MD5": Kind(one(options=b"\x01\x01\x13\x12" + bytes(16))),
    "source route": Kind(one(route=True)),
    "header's checksum": Kind(one(spoil=True), passes=False, certain="checksums"),
    "header's checksum behind": Kind(one(spoil=True), behind=True, certain="checksums"),
    "fragments, checksum": Kind(lambda forge, at, data: forge.fragments(forge.segment(at, data, checksum=wrong)),
                                certain="checksums"),
    "fragments, header's checksum": Kind(lambda forge, at, data: forge.fragments(forge.segment(at, data), spoil=True),
                                         passes=False),
    "fragments, header's checksum behind": Kind(
        lambda forge, at, data: forge.fragments(forge.segment(at, data), spoil=True), behind=True),
    "fragments, TTL": Kind(lambda forge, at, data: forge.fragments(forge.segment(at, data), ttl=1), passes=False),
    "fragments that overlap": Kind(lambda forge, at, data: forge.fragments(forge.segment(at, data), overlap=16)),
    "longer than its frame": Kind(one(longer=40), passes=False),
    "longer than its frame behind": Kind(one(longer=40), behind=True),
    "other station": Kind(one(station=STATION), passes=False),
    "other station behind": Kind(one(station=STATION), behind=True),
}


def hello(length: int = 0) -> bytes:
    """A ClientHello that no client here sends, of at least some length."""
    def extension(kind: int, content: bytes) -> bytes:
        return struct.pack(">HH", kind, len(content)) + content

    name = b"forged.example"
    extensions = b"".join([
        extension(0, struct.pack(">HBH", len(name) + 3, 0, len(name)) + name), extension(43, b"\x04\x03\x04\x03\x03"),
        extension(10, b"\x00\x02\x00\x1d"), extension(13, b"\x00\x02\x04\x03"),
        extension(51, b"\x00\x24\x00\x1d\x00\x20" + bytes(range(32))),
    ])
    ciphers = struct.pack(">3H", 0x1303, 0x1301, 0xC0A3)
    fixed = b"\x03\x03" + bytes(range(32)) + b"\x20" + bytes(32) + struct.pack(">H", len(ciphers)) + ciphers + b"\x01\x00"
    padding = length - 9 - len(fixed) - 2 - len(extensions) - 4
    if padding >= 0:
        extensions += extension(21, bytes(padding))
    body = fixed + struct.pack(">H", len(extensions)) + extensions
    return b"\x16\x03\x01" + struct.pack(">H", len(body) + 4) + b"\x01" + len(body).to_bytes(3, "big") + body


def reordered(real: bytes) -> bytes:
    """The client's own hello with one cipher that it does not have in place of its first: even its random is the same."""
    at = 44 + real[43]
    return real[: at + 2] + b"\xc0\xa3" + real[at + 4 :]


# What is forged, at which places: of the client's hello and where it is cut.
LAYOUTS: dict[str, Callable[[bytes, int], list[tuple[int, bytes]]]] = {
    "hello": lambda real, cut: [(0, hello())],
    "hello as long": lambda real, cut: [(0, hello(len(real)))],
    "its cipher": lambda real, cut: [(0, reordered(real))],
    "request": lambda real, cut: [(0, GET)],
    "front": lambda real, cut: [(0, hello(len(real))[:cut])],
    "rest": lambda real, cut: [(cut, hello(len(real))[cut:])],
    "halves": lambda real, cut: [(0, hello(len(real))[:cut]), (cut, hello(len(real))[cut:])],
}


def frames(flow: Flow, wires: dict[bool, Wire], kind: str, layout: str, real: bytes, cut: int) -> Iterable[tuple[bool, bytes]]:
    """The frames of a kind and a layout, each with whether it goes on the wire behind the router."""
    chosen = KINDS[kind]
    forge = Forge(flow, wires[chosen.behind])
    for at, data in LAYOUTS[layout](real, cut):
        for start in range(0, len(data), SEGMENT):
            for frame in chosen.make(forge, at + start, data[start : start + SEGMENT]):
                yield chosen.behind, frame
