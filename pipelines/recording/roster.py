"""Who takes part in the recording: one entry per client, in the order in which they start.

This is the only place that names addresses, start times and the ground truth. `record.py` gives
each address its own network namespace, runs the entry's command there and writes the entry,
with what the client itself counted, to `truth.jsonl`.
"""

from dataclasses import dataclass, field

SERVER_V4 = "192.0.2.10"
SERVER_V6 = "2001:db8:10::10"
HOSTS = ("www.example.test", "shop.example.test")
PORTS = (443, 8443)

# Wall time of the recording in seconds, from the start of the capture; the clients that run
# "all the time" (crawler, monitor) get it as their limit.
DURATION_S = 240

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36"
CHROME_WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36"
)


@dataclass(frozen=True)
class Client:
    """One client.

    `command` is run in the namespace of each address of `src_ips`; `{major}` in it and in
    `user_agent` is replaced by the installed Chromium's major version. `start` is in seconds
    from the start of the capture; a negative one starts before it, so that the capture lacks
    the hello of a connection that is already open. `expect_detected` is None where either
    answer of a detector is right (an honest tool is a bot, but not an attack).
    `before_capture` is the number of hellos that the capture cannot hold for that reason.
    """

    client: str
    kind: str
    src_ips: tuple[str, ...]
    command: tuple[str, ...]
    start: float
    bot: bool
    expect_detected: bool | None
    user_agent: str
    before_capture: int = 0
    note: str = field(default="")


CLIENTS = (
    Client("resumed-poller", "tool", ("203.0.113.21",), ("python", "keepalive.py", "--requests", "30", "--pause", "2"),
           -3, True, None, "status-poller/2.1", before_capture=1,
           note="connected before the capture started: its requests have no hello"),
    Client("slow-crawler", "crawler", ("203.0.113.200",), ("python", "crawler.py", "--pause", "4"),
           1, True, None, "ExampleBot/1.0 (+https://www.example.test/about.html)"),
    Client("health-checker", "monitor", ("192.0.2.200",), ("python", "monitor.py", "--pause", "5"),
           1, True, None, "example-health/1.4"),
    Client("chromium-reader", "browser", ("198.51.100.21",), ("node", "browser.js", "reader", CHROME),
           3, False, False, CHROME),
    Client("chromium-shopper", "browser", ("198.51.100.22",), ("node", "browser.js", "shopper", CHROME),
           18, False, False, CHROME),
    Client("chromium-searcher", "browser", ("198.51.100.201",), ("node", "browser.js", "searcher", CHROME),
           36, False, False, CHROME),
    Client("chromium-v6", "browser", ("2001:db8:100::24",), ("node", "browser.js", "reader", CHROME),
           55, False, False, CHROME),
    Client("curl-h1", "tool", ("203.0.113.11",), ("sh", "curl.sh", "--http1.1"),
           20, True, None, "curl/{curl}"),
    Client("curl-h2", "tool", ("203.0.113.12",), ("sh", "curl.sh", "--http2"),
           24, True, None, "curl/{curl}"),
    Client("wget", "tool", ("203.0.113.13",), ("sh", "wget.sh"),
           28, True, None, "Wget/{wget}"),
    Client("python-requests", "tool", ("203.0.113.14",), ("python", "requests_session.py"),
           32, True, None, "python-requests/{requests}"),
    Client("node-fetch", "tool", ("203.0.113.15",), ("node", "fetch.js"),
           36, True, None, "node"),
    Client("openssl-silent", "tool", ("203.0.113.16",), ("sh", "openssl.sh", "silent"),
           40, True, None, "", note="hellos without a request"),
    Client("openssl-http10", "tool", ("203.0.113.17",), ("sh", "openssl.sh", "http10"),
           42, True, None, "", note="an HTTP/1.0 request typed by hand"),
    Client("api-poller", "tool", ("203.0.113.18",), ("python", "keepalive.py", "--requests", "120", "--pause", "1"),
           8, True, None, "status-poller/2.1", note="all its requests on one connection"),
    Client("legacy-tls12", "tool", ("203.0.113.19",), ("python", "tls12.py"),
           48, True, None, "LegacyReader/3.2"),
    Client("fragmented-hello", "tool", ("203.0.113.20",), ("python", "fragmented.py"),
           52, True, None, "segment-test/1.0", note="hellos cut into many TCP segments"),
    Client("credential-stuffing", "stuffing", ("203.0.113.70", "203.0.113.71"),
           ("python", "stuffing.py", "--attempts", "80"), 30, True, True, "okhttp/4.12.0"),
    Client("scraper-spoof", "spoof", ("203.0.113.81",), ("python", "scraper.py", "--pages", "280", CHROME_WINDOWS),
           60, True, True, CHROME_WINDOWS, note="a browser's User-Agent on Python's TLS stack"),
    Client("path-scanner", "scanner", ("203.0.113.66",), ("python", "scanner.py"),
           90, True, True, "Mozilla/5.0 (compatible; pathprobe/0.9)"),
    Client("tcp-noise", "noise", ("203.0.113.250",), ("python", "noise.py"),
           70, True, None, "", note="SYN scan, TLS records with garbage, plain HTTP on a TLS port"),
)
