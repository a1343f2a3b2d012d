"""Writes the benchmark's input: hellos.jsonl, requests.jsonl and asn.csv, the same bytes for the same seed.

At scale 1: 195,965 ClientHellos (ja4sentinel's records) and 647,518 requests (mod_reqin_log's lines) of four hours,
together about 487 MB, from 60,000 addresses of the ranges that RFC 2544 and RFC 3849 keep for such use. Browsers keep
their connections, bots open many; one request in ten has no hello; lines are up to 2 s out of order; paths, hosts and
clients are as uneven as on a real site. Lines are made in order of time and never held longer than the disorder asks.

Usage: generate.py DIRECTORY [--scale 1.0] [--seed 1]
"""

import argparse
import heapq
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HELLOS, REQUESTS, CLIENTS = 195_965, 647_518, 60_000
START = 1_795_420_800 * 10**9  # 2026-11-23T08:00:00Z
HOURS = 4
MS = 10**6
SECOND = 10**9
DISORDER = 2 * SECOND
ORPHANS = 0.10  # share of connections whose hello was not captured
SILENT = 0.06  # share of hellos without a request
IPV6 = 0.18
HOSTS = (("www.example.test", 55), ("shop.example.test", 25), ("api.example.test", 12), ("img.example.test", 6),
         ("old.example.test", 2))
SERVERS = {4: "192.0.2.10", 6: "2001:db8:10::10"}

HELLO = (
    '{"timestamp":%d,"sensor_id":"bench-1","src_ip":"%s","src_port":%d,"dst_ip":"%s","dst_port":443,'
    '"conn_id":"%016x","ip_meta_ttl":%d,"ip_meta_total_length":%d,"ip_meta_id":%d,"ip_meta_df":true,'
    '%s,"syn_to_clienthello_ms":%.3f,"tls_version":"%s","tls_sni":"%s","tls_alpn":"%s",%s}\n'
)
STACK = (
    '"tcp_meta_window_size":%d,"tcp_meta_mss":%d,"tcp_meta_window_scale":%d,"tcp_meta_options":"%s"'
)
PRINT = '"ja4":"%s","ja3":"%s","ja3_hash":"%s"'
REQUEST = (
    '{"time":"%s.%06dZ","timestamp":%d,"src_ip":"%s","src_port":%d,"dst_ip":"%s","dst_port":443,'
    '"method":"%s","scheme":"https","host":"%s","path":"%s","query":"%s","http_version":"%s","has_cookie":%s,%s,'
    '"status_code":%d,"response_size":%d,"duration_ms":%d}\n'
)
REFERER = ',"header_Referer":"https://%s%s"'

CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.0.0"
HINTS = '"Chromium";v="{0}", "Google Chrome";v="{0}", "Not?A_Brand";v="24"'
CHROME_JA4 = "t13d1516h2_8daaf6152771_d8a2da3f94cd"
CHROME_JA3 = ("771,4865-4866-4867-49195-49199-49196-49200-52393-52392-156-157-47-53,"
              "0-5-10-11-13-16-18-23-27-35-43-45-51-17613-65037-65281,4588-29-23-24,0")
FIREFOX_JA3 = ("771,4865-4867-4866-49195-49199-52393-52392-49196-49200-49162-49161-156-157-47-53,"
               "0-23-65281-10-11-35-16-5-34-51-43-13-28-27-65037,4588-29-23-24-25,0")
LIBRARY_JA3 = "771,4866-4867-4865-49196-49200-52393-52392-49195-49199,0-11-10-16-22-23-13-43-45-51,29-23-30-25-24,0-1-2"
LINUX, WINDOWS, APPLE = (64, 64240, 7, "MSS,SACK,TS,NOP,WS"), (128, 65535, 8, "MSS,NOP,WS,NOP,NOP,SACK"), \
    (64, 65535, 6, "MSS,NOP,WS,NOP,NOP,TS,SACK,EOL")


@dataclass(frozen=True)
class Kind:
    """A kind of client: its share of addresses, how it connects, and what it sends."""

    name: str
    weight: float
    mean_requests: float  # of a connection
    gap_ms: tuple[float, float]  # mean within a burst, and between bursts
    behaviour: str  # browse, api, crawl, scan, stuff
    http: str
    stack: tuple[int, int, int, str]
    ja4: str
    ja3: str
    page: dict[str, str]  # headers with a page
    asset: dict[str, str]  # headers with everything else


def browser(name: str, weight: float, agent: str, stack: tuple, ja4: str, ja3: str, hints: dict[str, str]) -> Kind:
    """A browser: bursts of a page and its assets over one HTTP/2 connection."""
    always = {"User-Agent": agent, "Accept-Language": "en-US,en;q=0.9", **hints}
    page = always | {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}
    asset = always | {"Accept": "*/*", "Sec-Fetch-Dest": "script", "Sec-Fetch-Mode": "no-cors"}
    return Kind(name, weight, 2.2, (45, 9_000), "browse", "HTTP/2.0", stack, ja4, ja3, page, asset)


def library(name: str, weight: float, agent: str, behaviour: str, mean: float, gap: tuple[float, float], http: str,
            ja4: str, **more: str) -> Kind:
    """A program: the same few headers with every request."""
    headers = {"User-Agent": agent, "Accept": "*/*"}
    headers |= {key.replace("_", "-"): value for key, value in more.items()}
    return Kind(name, weight, mean, gap, behaviour, http, LINUX, ja4, LIBRARY_JA3, headers, headers)


def hints(major: int, platform: str, mobile: bool = False) -> dict[str, str]:
    """Client hints of a Chromium."""
    return {"Sec-CH-UA": HINTS.format(major), "Sec-CH-UA-Mobile": f"?{int(mobile)}",
            "Sec-CH-UA-Platform": f'"{platform}"'}


def kinds() -> list[Kind]:
    """Who visits."""
    windows, mac = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
    chrome = [
        browser(f"chrome-{major}", weight, f"{windows} {CHROME.format(major)} Safari/537.36", WINDOWS, CHROME_JA4,
                CHROME_JA3, hints(major, "Windows"))
        for major, weight in ((152, 9), (151, 5), (149, 1))
    ]
    return [
        *chrome,
        browser("chrome-mac", 4, f"{mac} {CHROME.format(152)} Safari/537.36", APPLE, CHROME_JA4, CHROME_JA3,
                hints(152, "macOS")),
        browser("chrome-android", 9, f"Mozilla/5.0 (Linux; Android 10; K) {CHROME.format(151)} Mobile Safari/537.36",
                LINUX, CHROME_JA4, CHROME_JA3, hints(151, "Android", mobile=True)),
        browser("firefox", 6, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:147.0) Gecko/20100101 Firefox/147.0",
                WINDOWS, "t13d1717h2_5b57614c22b0_3cbfd9057e0d", FIREFOX_JA3, {}),
        browser("safari", 8, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 "
                "(KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1", APPLE,
                "t13d2014h2_a09f3c656075_e42f34c56612", FIREFOX_JA3, {}),
        library("app", 34, "okhttp/4.12.0", "api", 4.8, (400, 12_000), "HTTP/2.0",
                "t13d1513h2_8daaf6152771_eca864cca44a", Content_Type="application/json"),
        library("python", 8, "python-requests/2.32.5", "crawl", 1.6, (900, 4_000), "HTTP/1.1",
                "t13d1812h1_85036bcba153_b26ce05bbdd6"),
        library("curl", 5, "curl/8.14.1", "api", 1.1, (500, 2_000), "HTTP/2.0",
                "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6"),
        library("go", 7, "Go-http-client/2.0", "api", 2.0, (1_000, 5_000), "HTTP/2.0",
                "t13d1312h2_f57a46bbacb6_ab7e3b40a677"),
        library("crawler", 7, "Mozilla/5.0 (compatible; ExampleBot/2.1; +https://bot.example.test/)", "crawl", 2.2,
                (1_500, 8_000), "HTTP/1.1", "t13d1715h1_5b57614c22b0_7121afd63204"),
        library("scraper", 4, f"{windows} {CHROME.format(150)} Safari/537.36", "crawl", 4.0, (300, 1_500), "HTTP/1.1",
                "t13d1812h1_85036bcba153_b26ce05bbdd6", Accept_Language="en-US,en;q=0.9"),
        library("scanner", 2, "Mozilla/5.0 (compatible; probe/1.3)", "scan", 5.0, (80, 1_000), "HTTP/1.1",
                "t12i1908h1_d83cc789557e_7af1ed941c26"),
        library("stuffer", 1, "python-requests/2.31.0", "stuff", 4.0, (700, 3_000), "HTTP/1.1",
                "t13d1812h1_85036bcba153_b26ce05bbdd6", Content_Type="application/x-www-form-urlencoded"),
    ]


class Client:
    """An address and what it is, with the parts of its lines that never change."""

    __slots__ = ("kind", "ip", "server", "page", "asset", "stack", "fingerprint", "ttl")

    def __init__(self, number: int, kind: Kind, version: int, rng: random.Random, parts: dict):
        self.kind = kind
        # Spread over the range, so that neighbours in popularity are not neighbours in a prefix.
        place = number * 40_503 % 131_072
        self.ip = f"198.{18 + (place >> 16)}.{place >> 8 & 255}.{place & 255}" if version == 4 \
            else f"2001:db8:{place >> 4:x}:{(place & 15) + 1:x}::{rng.randrange(1, 65536):x}"
        self.server = SERVERS[version]
        self.page, self.asset, self.fingerprint = parts[kind.name]
        ttl, window, scale, options = kind.stack
        self.stack = STACK % (window, 1460 if version == 4 else 1440, scale, options)
        self.ttl = ttl - rng.randrange(6, 22)


class Site:
    """Hosts and paths; a path's rank decides how often it is asked for."""

    def __init__(self, rng: random.Random):
        topics = ("garden", "kitchen", "travel", "music", "weather", "reading", "cycling", "news")
        self.pages = ["/", *(f"/{rng.choice(topics)}/{rng.choice(topics)}-{n}.html" for n in range(12_000))]
        self.assets = [f"/assets/{n % 97:02x}/{rng.choice(topics)}-{n:x}.{ending}" for n in range(800)
                       for ending in ("js", "css", "webp", "woff2")]
        self.calls = [f"/api/v{n % 3 + 1}/{rng.choice(topics)}/{n}" for n in range(4_000)]
        self.missing = [f"/{folder}{name}" for folder in ("", "old/", "test/", "backup/", "site/", "dev/")
                        for name in (".env", ".git/config", "wp-login.php", "phpmyadmin/index.php", "xmlrpc.php",
                                     "cgi-bin/test.cgi", "config.json", "backup.zip", "admin/", "server-status")]


def connection(client: Client, count: int, opened: int, port: int, host: str, site: Site,
               rng: random.Random) -> Iterator[tuple[int, str]]:
    """The requests of one connection, as (time in nanoseconds, line)."""
    kind, uniform = client.kind, rng.random
    burst, between = kind.gap_ms
    at = opened + int(rng.uniform(8_000, 90_000)) * 1_000  # whole microseconds, as Apache logs
    cookie = "true" if kind.behaviour == "browse" and uniform() < 0.8 else "false"
    page = "/"
    left_in_burst = 0
    for _ in range(count):
        method, query, status, headers = "GET", "", 200, client.asset
        if kind.behaviour == "browse":
            if left_in_burst <= 0:
                page, left_in_burst = site.pages[int(len(site.pages) * uniform() ** 4)], rng.randrange(1, 9)
                path, headers = page, client.page
                query = f"q={rng.randrange(5000)}&page={rng.randrange(9)}" if uniform() < 0.06 else ""
            else:
                path = site.assets[int(len(site.assets) * uniform() ** 3)]
                headers += REFERER % (host, page)
                status = 304 if uniform() < 0.2 else 200
        elif kind.behaviour == "api":
            path = site.calls[int(len(site.calls) * uniform() ** 3)]
            method = "POST" if uniform() < 0.35 else "GET"
            query = f"since={at // SECOND}" if uniform() < 0.3 else ""
        elif kind.behaviour == "crawl":
            path = site.pages[int(len(site.pages) * uniform())]
            status = 404 if uniform() < 0.03 else 200
        elif kind.behaviour == "scan":
            path, status = site.missing[rng.randrange(len(site.missing))], 404
        else:
            path, method, status = "/login", "POST", 401
        left_in_burst -= 1
        second, rest = divmod(at, SECOND)
        yield at, REQUEST % (
            iso(second), rest // 1000, at, client.ip, port, client.server, method, host, path, query, kind.http,
            # A request takes no time here: the programs beside which the engine is measured know one time of it.
            cookie, headers, status, int(120 + 9_000 * uniform() ** 3), 0,
        )
        # Within a burst the gaps are short; a connection is never idle for longer than its server keeps it.
        mean = burst if left_in_burst > 0 else between
        at += 1_000 * int(1_000 * min(rng.expovariate(1 / mean), 100_000)) + 1_000


def iso(second: int, cache: dict[int, str] = {}) -> str:  # noqa: B006 (the cache is meant to live on)
    """`2026-11-23T08:00:00`, remembered: half a million lines share a few thousand seconds."""
    text = cache.get(second)
    if text is None:
        text = cache[second] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return text


class Disordered:
    """A file whose lines arrive up to DISORDER late; `flush` writes what no later line can precede."""

    def __init__(self, path: Path, rng: random.Random):
        self.file = path.open("w", encoding="ascii", buffering=1 << 20)
        self.rng = rng
        self.waiting: list[tuple[int, int, str]] = []
        self.lines = 0

    def add(self, at: int, line: str) -> None:
        """Takes a line of event time `at`; two in three arrive nearly in time."""
        random_ = self.rng.random
        late = int(DISORDER * random_()) if random_() < 0.33 else int(20 * MS * random_())
        self.lines += 1
        heapq.heappush(self.waiting, (at + late, self.lines, line))

    def flush(self, until: int) -> None:
        """Writes the lines that arrive before `until`."""
        waiting, write = self.waiting, self.file.write
        while waiting and waiting[0][0] < until:
            write(heapq.heappop(waiting)[2])


def generate(directory: Path, scale: float, seed: int) -> tuple[int, int]:
    """Writes the three files; returns the numbers of hellos and of requests."""
    rng = random.Random(seed)
    site = Site(rng)
    hellos_left, requests_left = round(HELLOS * scale), round(REQUESTS * scale)
    clients = population(max(20, round(CLIENTS * scale)), rng)
    connections = round(hellos_left / (1 - ORPHANS))
    step = HOURS * 3600 * SECOND * 0.985 / connections  # the last ones need time for their requests
    hosts, weights = zip(*HOSTS)
    hellos, requests = (Disordered(directory / name, rng) for name in ("hellos.jsonl", "requests.jsonl"))
    for number in range(connections):
        opened = START + int(number * step + rng.random() * step) // 1000 * 1000
        hellos.flush(opened)
        requests.flush(opened)
        client = clients[int(len(clients) * rng.random() ** 1.6)]
        port, host = rng.randrange(32_768, 61_000), rng.choices(hosts, weights)[0]
        remaining = connections - number
        if hellos_left >= remaining or (hellos_left and rng.random() < hellos_left / remaining):
            hellos_left -= 1
            # The record carries the hello; the handshake has ended when the first request comes.
            hellos.add(opened, hello(client, opened, port, host, rng))
            silent = remaining > 1 and rng.random() < SILENT
        else:
            silent = False
        # Scaled by what is still to come, so that the total is exact without a tail of odd connections.
        drawn = 0 if silent else rng.expovariate(1 / client.kind.mean_requests) * requests_left / (remaining * 3.2)
        count = min(requests_left, int(drawn + rng.random()) if remaining > 1 else requests_left)
        requests_left -= count
        for at, line in connection(client, count, opened, port, host, site, rng):
            requests.add(at, line)
    for file in (hellos, requests):
        file.flush(1 << 63)
        file.file.close()
    asn_table(directory / "asn.csv", rng)
    return hellos.lines, requests.lines


def population(count: int, rng: random.Random) -> list[Client]:
    """The clients, most active first."""
    everyone = kinds()
    parts = {
        kind.name: (headers(kind.page), headers(kind.asset),
                    PRINT % (kind.ja4, kind.ja3, f"{rng.getrandbits(128):032x}"))
        for kind in everyone
    }
    chosen = rng.choices(everyone, [kind.weight for kind in everyone], k=count)
    return [Client(n, kind, 6 if rng.random() < IPV6 else 4, rng, parts) for n, kind in enumerate(chosen)]


def headers(given: dict[str, str]) -> str:
    """The header keys of a request line."""
    return json.dumps({f"header_{name}": value for name, value in given.items()}, separators=(",", ":"))[1:-1]


def hello(client: Client, opened: int, port: int, host: str, rng: random.Random) -> str:
    """One ClientHello's record."""
    kind = client.kind
    version = "1.3" if kind.ja4[1:3] == "13" else "1.2"
    return HELLO % (
        opened, client.ip, port, client.server, rng.getrandbits(64), client.ttl, 560 if version == "1.2" else 1_852,
        rng.randrange(65_536), client.stack, rng.uniform(4, 90), version, host if kind.ja4[3] == "d" else "",
        "h2" if kind.ja4[8:10] == "h2" else "http/1.1", client.fingerprint,
    )


def asn_table(path: Path, rng: random.Random) -> None:
    """Networks for all addresses: /20s of 198.18.0.0/15 with /24s inside some, and /44s of 2001:db8::/32."""
    with path.open("w", encoding="ascii") as out:
        out.write("network,asn,country_code,name,org,domain\n")
        networks = [f"198.{18 + (n >> 4)}.{(n & 15) << 4}.0/20" for n in range(32)]
        networks += [f"198.{18 + (n >> 8)}.{n & 255}.0/24" for n in range(512) if rng.random() < 0.3]
        networks += [f"2001:db8:{n << 4:x}::/44" for n in range(512)]
        for network in networks:
            number = rng.randrange(64_512, 64_912)
            country = ("US", "DE", "FR", "BR", "IN", "JP", "NL", "ZA")[number % 8]
            out.write(f"{network},{number},{country},AS-{number},Network {number},as{number}.example\n")


def main() -> None:
    """Writes the files and says what they hold."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("directory", type=Path)
    options.add_argument("--scale", type=float, default=1.0, help="share of the full size (1.0)")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    hellos, requests = generate(given.directory, given.scale, given.seed)
    size = sum((given.directory / name).stat().st_size for name in ("hellos.jsonl", "requests.jsonl"))
    print(f"{hellos} hellos, {requests} requests, {size / 1e6:.1f} MB, {time.monotonic() - begun:.1f} s",
          file=sys.stderr)


if __name__ == "__main__":
    main()
