"""What the Python clients share: URLs, TLS contexts, a request on an http.client connection, the report.

Environment: JA4REC_CA (certificate file), JA4REC_SEED, JA4REC_DURATION (seconds that are left).
Every client prints one JSON object as its last line: `requests`, sent with a complete request line, and
`hellos`, TLS handshakes begun. `record.py` compares both with the server's log and the capture.
"""

import http.client
import json
import os
import random
import ssl
import time

WWW = "www.example.test"
SHOP = "shop.example.test"
TOPICS = ("garden", "kitchen", "workshop", "cycling", "reading", "weather", "travel", "music")
ARTICLES = [f"/{topic}/{number}.html" for topic in TOPICS for number in (1, 2, 3)]
ITEMS = [f"/shop/item-{number}.html" for number in range(1, 13)]

rng = random.Random(int(os.environ["JA4REC_SEED"]))


def context(**versions) -> ssl.SSLContext:
    """A client context that trusts the recording's authority; versions as attributes of SSLContext."""
    made = ssl.create_default_context(cafile=os.environ["JA4REC_CA"])
    for name, value in versions.items():
        setattr(made, name, value)
    return made


class Counted:
    """An http.client connection that counts its requests and handshakes."""

    requests = 0
    hellos = 0

    def __init__(self, host: str, port: int = 443, tls: ssl.SSLContext | None = None):
        self.connection = http.client.HTTPSConnection(host, port, timeout=30, context=tls or context())

    def fetch(self, method: str, path: str, headers: dict | None = None, body: str | None = None) -> int:
        """Sends one request, connecting first if need be, reads the answer and returns its status."""
        if self.connection.sock is None:
            self.connection.connect()
            Counted.hellos += 1
        self.connection.request(method, path, body=body, headers=headers or {})
        Counted.requests += 1
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def close(self) -> None:
        """Closes; the next fetch connects again."""
        self.connection.close()


def pause(low: float, high: float) -> None:
    """Waits a seeded random time."""
    time.sleep(rng.uniform(low, high))


def deadline() -> float:
    """The end of the recording on time.monotonic's clock."""
    return time.monotonic() + float(os.environ["JA4REC_DURATION"])


def report(requests: int | None = None, hellos: int | None = None) -> None:
    """Prints the counts, those of `Counted` unless told."""
    print(json.dumps({
        "requests": Counted.requests if requests is None else requests,
        "hellos": Counted.hellos if hellos is None else hellos,
    }))
