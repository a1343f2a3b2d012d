"""Sends its ClientHello in small TCP segments, a few bytes each, then an ordinary request."""

import socket
import ssl
import time

from common import WWW, context, report

ROUNDS = ((64, 0.005), (17, 0.002), (200, 0.05), (6, 0.001), (100, 0.0))


def exchange(piece: int, gap: float) -> None:
    """One connection: hello in pieces of `piece` bytes with `gap` seconds between, then one request."""
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context().wrap_bio(received, sent, server_hostname=WWW)
    with socket.create_connection((WWW, 443), timeout=30) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def turn(action, *arguments):
            while True:
                try:
                    return action(*arguments)
                except ssl.SSLWantReadError:
                    stream.sendall(sent.read())
                    received.write(stream.recv(65536))

        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            hello = sent.read()
        for start in range(0, len(hello), piece):
            stream.sendall(hello[start:start + piece])
            time.sleep(gap)
        received.write(stream.recv(65536))
        turn(tls.do_handshake)
        request = f"GET /about.html HTTP/1.1\r\nHost: {WWW}\r\nUser-Agent: segment-test/1.0\r\nConnection: close\r\n\r\n"
        tls.write(request.encode())
        stream.sendall(sent.read())
        while stream.recv(65536):
            pass


for piece, gap in ROUNDS:
    exchange(piece, gap)
report(requests=len(ROUNDS), hellos=len(ROUNDS))
