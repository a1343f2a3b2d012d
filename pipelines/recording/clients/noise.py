"""TCP noise without a usable hello: a SYN scan, TLS records with garbage, plain HTTP on a TLS port.

The plain HTTP request gets a 400 from Apache and is in the request log; it is the only one counted.
"""

import socket
import struct
import sys
import time

from common import WWW, report, rng

SERVER = (socket.gethostbyname(WWW), 443)


def syn_scan(ports: list[int]) -> None:
    """One SYN a port; the kernel, which knows nothing of it, resets what is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.connect((SERVER[0], 0))
        source = raw.getsockname()[0]
        for port in ports:
            header = struct.pack("!HHIIBBHHH", rng.randrange(32768, 60999), port, rng.getrandbits(32), 0, 5 << 4, 2, 1024, 0, 0)
            pseudo = socket.inet_aton(source) + socket.inet_aton(SERVER[0]) + struct.pack("!BBH", 0, 6, len(header))
            total = sum(struct.unpack(f"!{len(pseudo + header) // 2}H", pseudo + header))
            total = (total & 0xFFFF) + (total >> 16)
            total = ~(total + (total >> 16)) & 0xFFFF
            raw.send(header[:16] + struct.pack("!H", total) + header[18:])
            time.sleep(0.02)


def send(data: bytes) -> None:
    """Sends bytes on a new connection and waits for the server to close it."""
    with socket.create_connection(SERVER, timeout=30) as stream:
        stream.sendall(data)
        try:
            while stream.recv(4096):
                pass
        except ConnectionResetError:
            pass


syn_scan([443, 8443, 22, 80, 8080, 443, 8443, 443])
with socket.create_connection(SERVER):
    time.sleep(1)  # connects and says nothing
# A handshake record whose body is no hello; one with a hello's type and a length that lies; one of an alert.
send(b"\x16\x03\x01\x00\x40" + rng.randbytes(64))
send(b"\x16\x03\x01\x00\x20\x01\xff\xff\xff" + rng.randbytes(28))
send(b"\x15\x03\x03\x00\x02\x02\x28")
send(rng.randbytes(300))
send(b"GET /plain HTTP/1.1\r\nHost: www.example.test\r\nUser-Agent: plain/1.0\r\nConnection: close\r\n\r\n")
print("noise sent", file=sys.stderr)
report(requests=1, hellos=0)
