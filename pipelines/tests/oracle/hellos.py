"""The ClientHellos of a capture, by tshark, with JA4 computed here from the fields that tshark decodes.

Reassembly, decoding and the fingerprint share nothing with the engine. Only TCP; of a connection that sends a second
ClientHello after a HelloRetryRequest, both are listed, `index` 0 and 1.

Usage: hellos.py CAPTURE [--ports 443,8443]     one JSON object a line
"""

import argparse
import hashlib
import ipaddress
import json
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

# The 16 reserved values of RFC 8701: 0a0a, 1a1a … fafa.
GREASE = {f"{digit}a{digit}a" for digit in "0123456789abcdef"}
VERSIONS = {"0304": "13", "0303": "12", "0302": "11", "0301": "10", "0300": "s3", "0002": "s2"}
SERVER_NAME, SIGNATURE_ALGORITHMS, ALPN, SUPPORTED_VERSIONS, KEY_SHARE = "0000", "000d", "0010", "002b", "0033"
# ML-KEM alone and with a curve, as registered by IANA; 6399 and 639a were Kyber's.
POST_QUANTUM = {"0200", "0201", "0202", "11eb", "11ec", "11ed", "6399", "639a"}
NOTHING = "0" * 12


@dataclass
class Fields:
    """What JA4 takes from a hello: numbers as four lower-case hex digits, in wire order."""

    legacy_version: str
    ciphers: list[str] = field(default_factory=list)
    extensions: list[str] = field(default_factory=list)
    supported_versions: list[str] = field(default_factory=list)
    signature_algorithms: list[str] = field(default_factory=list)
    alpn: list[bytes] = field(default_factory=list)
    server_name: str | None = None
    key_shares: list[str] = field(default_factory=list)


@dataclass
class Hello:
    """One ClientHello; `time` in nanoseconds since 1970 is that of the packet that completed it.

    IP and TCP fields are those of the connection's SYN; without a SYN, those of the IP header are of the packet that
    completed the hello, and those of TCP are unknown.
    """

    time: int
    index: int
    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int
    ja4: str
    tls_sni: str | None
    tls_alpn: str | None
    ip_meta_ttl: int
    ip_meta_id: int | None
    tcp_meta_window_size: int | None
    tcp_meta_mss: int | None
    syn_to_clienthello_ms: float | None
    post_quantum: bool = False


@dataclass
class Syn:
    """A client's first packet."""

    time: int
    window: int
    mss: int | None
    ttl: int
    ip_id: int | None


def hellos(capture: Path, ports: tuple[int, ...] = (443, 8443)) -> list[Hello]:
    """All hellos to one of `ports`, in the order in which the capture completes them."""
    opened = syns(capture)
    seen: Counter[str] = Counter()
    found = []
    for packet in dissected(capture, ports):
        protocols = list(packet)
        position = max(i for i, protocol in enumerate(protocols) if protocol.get("name") == "tcp")
        tcp = protocols[position]
        ip = next(p for p in reversed(protocols[:position]) if p.get("name") in ("ip", "ipv6"))
        family = ip.get("name")
        stream = shown(tcp, "tcp.stream")
        time = nanoseconds(shown(packet, "frame.time_epoch"))
        syn = opened.get(stream)
        for handshake in packet.iter("field"):
            if handshake.get("name") != "tls.handshake" or shown(handshake, "tls.handshake.type") != "1":
                continue
            read = fields(handshake)
            found.append(Hello(
                time=time,
                index=seen[stream],
                src_ip=canonical(shown(ip, f"{family}.src")),
                src_port=int(shown(tcp, "tcp.srcport")),
                dst_ip=canonical(shown(ip, f"{family}.dst")),
                dst_port=int(shown(tcp, "tcp.dstport")),
                ja4=ja4(read),
                tls_sni=read.server_name,
                tls_alpn=read.alpn[0].decode("utf-8", "replace") if read.alpn else None,
                ip_meta_ttl=syn.ttl if syn else int(shown(ip, "ip.ttl" if family == "ip" else "ipv6.hlim")),
                ip_meta_id=syn.ip_id if syn else int(shown(ip, "ip.id"), 16) if family == "ip" else None,
                tcp_meta_window_size=syn.window if syn else None,
                tcp_meta_mss=syn.mss if syn else None,
                syn_to_clienthello_ms=(time - syn.time) / 1e6 if syn else None,
                post_quantum=not POST_QUANTUM.isdisjoint(read.key_shares),
            ))
            seen[stream] += 1
    return found


def ja4(hello: Fields) -> str:
    """The JA4 of a hello over TCP."""
    ciphers = [cipher for cipher in hello.ciphers if cipher not in GREASE]
    extensions = [extension for extension in hello.extensions if extension not in GREASE]
    versions = [version for version in hello.supported_versions if version not in GREASE]
    if SUPPORTED_VERSIONS in hello.extensions:
        version = max(versions, default="")
    else:
        version = hello.legacy_version
    first = (
        f"t{VERSIONS.get(version, '00')}{'d' if SERVER_NAME in extensions else 'i'}"
        f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}{alpn_characters(hello.alpn)}"
    )
    hashed = ",".join(sorted(e for e in extensions if e not in (SERVER_NAME, ALPN)))
    algorithms = [algorithm for algorithm in hello.signature_algorithms if algorithm not in GREASE]
    if hashed and algorithms:
        hashed += "_" + ",".join(algorithms)
    return f"{first}_{digest(','.join(sorted(ciphers)))}_{digest(hashed)}"


def alpn_characters(values: list[bytes]) -> str:
    """First and last character of the first ALPN value, or of its hex form."""
    if not values or not values[0]:
        return "00"
    text = values[0]
    ends = bytes([text[0], text[-1]])
    if all(byte < 128 and chr(byte).isalnum() for byte in ends):
        return ends.decode("ascii")
    return text.hex()[0] + text.hex()[-1]


def digest(text: str) -> str:
    """The first 12 hex digits of the SHA-256, or zeros for nothing."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12] if text else NOTHING


def fields(handshake: ElementTree.Element) -> Fields:
    """Reads tshark's tree of one ClientHello."""
    hello = Fields(legacy_version=value(handshake, "tls.handshake.version"))
    hello.ciphers = values(handshake, "tls.handshake.ciphersuite")
    for extension in handshake.iter("field"):
        kind = next((f.get("value") for f in extension if f.get("name") == "tls.handshake.extension.type"), None)
        if kind is None:
            continue
        hello.extensions.append(kind)
        # Other extensions (delegated credentials, ALPS) hold fields of the same names.
        if kind == SIGNATURE_ALGORITHMS:
            hello.signature_algorithms += values(extension, "tls.handshake.sig_hash_alg")
        elif kind == SUPPORTED_VERSIONS:
            hello.supported_versions += values(extension, "tls.handshake.extensions.supported_version")
        elif kind == ALPN:
            hello.alpn += [bytes.fromhex(v) for v in values(extension, "tls.handshake.extensions_alpn_str")]
        elif kind == KEY_SHARE:
            hello.key_shares += values(extension, "tls.handshake.extensions_key_share_group")
        elif kind == SERVER_NAME:
            names = values(extension, "tls.handshake.extensions_server_name")
            hello.server_name = bytes.fromhex(names[0]).decode("utf-8", "replace") if names else None
    return hello


def syns(capture: Path) -> dict[str, Syn]:
    """The first SYN of each TCP stream, by tshark's number of the stream."""
    names = ("tcp.stream", "frame.time_epoch", "tcp.window_size_value", "tcp.options.mss_val", "ip.ttl", "ipv6.hlim",
             "ip.id")
    # The last occurrence: inside a tunnel there are several IP headers.
    command = [*tshark(capture), "-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0", "-T", "fields", "-E", "occurrence=l"]
    for name in names:
        command += ["-e", name]
    opened: dict[str, Syn] = {}
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        stream, time, window, mss, ttl, hop_limit, ip_id = line.split("\t")
        opened.setdefault(stream, Syn(
            time=nanoseconds(time), window=int(window), mss=int(mss) if mss else None, ttl=int(ttl or hop_limit),
            ip_id=int(ip_id, 16) if ip_id else None,
        ))
    return opened


def dissected(capture: Path, ports: tuple[int, ...]) -> Iterator[ElementTree.Element]:
    """tshark's PDML of the packets that complete a ClientHello, one element a packet."""
    wanted = " || ".join(f"tcp.dstport == {port}" for port in ports) or "tcp"
    command = [*tshark(capture), "-Y", f"tcp && tls.handshake.type == 1 && ({wanted})", "-T", "pdml"]
    for port in ports:
        command += ["-d", f"tcp.port=={port},tls"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        for _, element in ElementTree.iterparse(process.stdout):
            if element.tag == "packet":
                yield element
                element.clear()
        complaint = process.stderr.read().decode("utf-8", "replace")
    if process.returncode != 0:
        raise RuntimeError(f"tshark failed: {complaint}")


def tshark(capture: Path) -> list[str]:
    """tshark over a capture, with segments put in order before they are decoded."""
    return ["tshark", "-n", "-r", str(capture), "-o", "tcp.reassemble_out_of_order:TRUE"]


def nanoseconds(seconds: str) -> int:
    """`1675707151.805776000` as an integer, without a float in between."""
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0")[:9])


def canonical(address: str) -> str:
    """An address as text, an IPv4-mapped one as IPv4."""
    parsed = ipaddress.ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def shown(element: ElementTree.Element, name: str) -> str:
    """The displayed value of the first field of this name."""
    return next(f.get("show", "") for f in element.iter("field") if f.get("name") == name)


def value(element: ElementTree.Element, name: str) -> str:
    """The bytes in hex of the first field of this name."""
    return next(f.get("value", "") for f in element.iter("field") if f.get("name") == name)


def values(element: ElementTree.Element, name: str) -> list[str]:
    """The bytes in hex of all fields of this name, in order."""
    return [f.get("value", "") for f in element.iter("field") if f.get("name") == name]


def main() -> None:
    """Prints the hellos."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("capture", type=Path)
    options.add_argument("--ports", default="443,8443", help="destination ports; empty for all")
    given = options.parse_args()
    ports = tuple(int(port) for port in given.ports.split(",") if port)
    for hello in hellos(given.capture, ports):
        print(json.dumps(asdict(hello)))


if __name__ == "__main__":
    main()
