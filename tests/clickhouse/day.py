"""A day of traffic at a site, the same for the same seed: hellos, requests and lists that give every feature something to see.

Clients are browsers, phones, crawlers, scanners, password stuffers and libraries over IPv4 and IPv6, some behind one address, some
that change fingerprint, User-Agent or the order of headers. Connections are kept alive; some have no hello, some speak
HTTP/1.0, other ports, or TLS that does not fit their HTTP.
"""

import json
import random
from dataclasses import dataclass, field

SECOND, HOUR = 10**9, 3600 * 10**9
HOSTS = ("www.example.test", "shop.example.test", "api.example.test", "old.example.test")
PAGES = ("/", "/index.html", "/garden/tools", "/kitchen/pans.html", "/search", "/login", "/account/orders/17")
ASSETS = ("/static/app.js", "/static/site.css", "/img/logo.svg", "/fonts/a.woff2")
PROBES = ("/.env", "/wp-login.php", "/../../etc/passwd", "/cgi-bin/%2e%2e/sh", "/backup.zip", "/old/admin.php")
CHROME, FIREFOX, CURL, PYTHON = ("t13d1516h2_8daaf6152771_d8a2da3f94cd", "t13d1717h2_5b57614c22b0_3cbfd9057e0d",
                                 "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6", "t13d1812h1_85036bcba153_b26ce05bbdd6")
RARE = "t12i1908h1_d83cc789557e_7af1ed941c26"
AGENT = {
    "chrome": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/152.0.0.0 Safari/537.36",
    "phone": "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/151.0.0.0 Mobile Safari/537.36",
    "firefox": "Mozilla/5.0 (X11; Linux x86_64; rv:147.0) Gecko/20100101 Firefox/147.0",
    "curl": "curl/8.14.1", "python": "python-requests/2.32.5", "probe": "Mozilla/5.0 (compatible; probe/1.3)",
}


@dataclass(frozen=True)
class Kind:
    """What a client is."""

    name: str
    ja4: str
    ja3: str
    alpn: str
    http: str
    agent: str
    mss: int
    window: int
    paths: tuple
    gap_s: float
    headers: dict = field(default_factory=dict)
    hints: bool = False


KINDS = (
    Kind("chrome", CHROME, "771,4865-4866,0-5-10,29-23-24,0", "h2", "HTTP/2.0", "chrome", 1460, 65535, PAGES + ASSETS * 3, 4,
         {"Accept": "text/html,*/*;q=0.8", "Accept-Language": "en-US,en;q=0.9"}, hints=True),
    Kind("phone", CHROME, "771,4865-4866,0-5-10,29-23-24,0", "h2", "HTTP/2.0", "phone", 1400, 64240, PAGES + ASSETS, 9,
         {"Accept": "text/html,*/*;q=0.8", "Accept-Language": "de"}, hints=True),
    Kind("firefox", FIREFOX, "771,4865-4867,0-23-65281,29-23-24,0", "h2", "HTTP/2.0", "firefox", 1460, 64240, PAGES + ASSETS, 6,
         {"Accept": "text/html,*/*;q=0.8", "Accept-Language": "fr", "Accept-Encoding": "gzip, br"}),
    Kind("crawler", PYTHON, "771,4866-4867,0-11-10,29-23,0", "http/1.1", "HTTP/1.1", "python", 1460, 29200, PAGES, 20, {"Accept": "*/*"}),
    Kind("scanner", RARE, "771,49195-49199,0-11,29-23,0", "http/1.1", "HTTP/1.1", "probe", 1360, 1024, PROBES, 1.5, {}),
    Kind("stuffer", PYTHON, "771,4866-4867,0-11-10,29-23,0", "http/1.1", "HTTP/1.1", "python", 1460, 29200, ("/login",), 3,
         {"Accept": "*/*", "Content-Type": "application/x-www-form-urlencoded"}),
    Kind("library", CURL, "771,4866-4865,0-11-10,29-23,0-1-2", "h2", "HTTP/1.1", "curl", 0, 64240, ("/api/items", "/api/items/9"), 12,
         {"Accept": "*/*", "Content-Type": "text/xml"}),
)


def generate(seed: int, begin: int, connections: int = 2600) -> tuple[list[dict], list[dict]]:
    """Hellos and requests, each in order of time; `begin` is in ns, at midnight."""
    rng = random.Random(seed)
    clients = [(kind, address(number), rng.sample(HOSTS, rng.randint(1, 3))) for number, kind in enumerate(KINDS * 9)]
    hellos, requests = [], []
    for number in range(connections):
        kind, ip, hosts = rng.choice(clients)
        opened = begin + int(24 * HOUR * (number + rng.random()) / connections)
        port, dst_port = rng.randrange(1024, 65536), rng.choice((443,) * 9 + (8443,))
        end = {"src_ip": ip, "src_port": port, "dst_ip": "2001:db8:10::10" if ":" in ip else "192.0.2.10", "dst_port": dst_port}
        if rng.random() > 0.12:
            hellos.append({"timestamp": opened, **end, **hello(kind, number, rng)})
        at, host = opened + rng.randrange(5, 90) * 10**6, rng.choice(hosts)
        for _ in range(min(40, 1 + int(rng.expovariate(0.35)))):
            requests.append({"timestamp": at, **end, **request(kind, host, rng)})
            at += int(min(60.0, rng.expovariate(1 / kind.gap_s)) * SECOND) + 10**6
    end = begin + 24 * HOUR
    return ordered(hellos, end), ordered(requests, end)


def ordered(rows: list[dict], end: int) -> list[dict]:
    """By time; what would be after the day is left out."""
    return sorted((row for row in rows if row["timestamp"] < end), key=lambda row: row["timestamp"])


def address(number: int) -> str:
    """Neighbours of several kinds share an address."""
    if number % 4 == 3:
        return f"2001:db8:{100 + number % 5:x}::{number + 1:x}"
    return f"{('198.51.100', '203.0.113')[number % 2]}.{1 + number * 7 % 120}"


def hello(kind: Kind, number: int, rng: random.Random) -> dict:
    """A hello's record; a phone now and then has another stack."""
    ja4 = RARE if kind.name == "phone" and rng.random() < 0.1 else kind.ja4
    if kind.name == "library" and rng.random() < 0.1:
        ja4 = f"t13d0909h2_{number:012x}_b26ce05bbdd6"  # nobody else's
    mss = {"tcp_meta_mss": kind.mss} if kind.mss else {}
    return {"sensor_id": f"sensor-{number % 2}", "conn_id": f"{number:x}", "ip_meta_ttl": rng.choice((52, 57, 113)), "ip_meta_total_length": 1852,
            "ip_meta_id": 0 if kind.name == "scanner" else rng.randrange(65536), "ip_meta_df": rng.random() < 0.9,
            "tcp_meta_window_size": kind.window, **mss, "tcp_meta_window_scale": 7, "tcp_meta_options": "MSS,SACK,TS,NOP,WS",
            "syn_to_clienthello_ms": round(rng.uniform(2, 80), 3), "tls_version": "1.2" if ja4 == RARE else "1.3",
            "tls_sni": "" if ja4[3] == "i" else rng.choice(HOSTS), "tls_alpn": kind.alpn, "ja4": ja4, "ja3": kind.ja3,
            "ja3_hash": f"{hash_of(kind.ja3):032x}"}


def hash_of(text: str) -> int:
    """Any number that is the same in every run."""
    return int.from_bytes(random.Random(text).randbytes(16), "big")


def request(kind: Kind, host: str, rng: random.Random) -> dict:
    """A line of the web server's log."""
    path = rng.choice(kind.paths)
    headers = {"User-Agent": AGENT[kind.agent], **kind.headers}
    method, query = rng.choice(("GET",) * 12 + ("HEAD", "POST", "OPTIONS")), ""
    if kind.name == "stuffer":
        method = "POST"
    elif kind.name == "scanner":
        headers["User-Agent"] = rng.choice(list(AGENT.values()))
        query = rng.choice(("", "id=1 UNION SELECT 2", "f=../../etc/passwd", f"q={rng.randrange(99)}"))
    elif path == "/search":
        query = f"q={rng.randrange(30)}&caf\u00e9=1"
    if kind.hints:
        mobile = kind.name == "phone"
        headers["User-Agent"] = rng.choice((AGENT[kind.agent],) * 14 + (AGENT["firefox"],))
        headers |= {"Sec-CH-UA": '"Chromium";v="152"', "Sec-CH-UA-Mobile": f"?{int(mobile != (rng.random() < 0.1))}",
                    "Sec-CH-UA-Platform": '"Android"' if mobile else rng.choice(('"Windows"', '"Linux"'))}
    if kind.name in ("chrome", "phone", "firefox"):
        page = path in PAGES
        headers |= {"Sec-Fetch-Mode": "navigate" if page or rng.random() < 0.05 else "no-cors", "Sec-Fetch-Dest": "document" if page else "script",
                    "Sec-Fetch-Site": rng.choice(("same-origin", "none"))}
        if rng.random() < 0.7:
            headers["Referer"] = f"https://{host}/"
    if rng.random() < 0.08:
        headers["X-Forwarded-For"] = "192.0.2.77"
    names = list(headers)
    if rng.random() < 0.15:
        rng.shuffle(names)
    http = "HTTP/1.0" if kind.name == "crawler" and rng.random() < 0.2 else kind.http
    return {"method": method, "scheme": "https", "host": host, "path": path, "query": query, "http_version": http,
            "has_cookie": kind.name in ("chrome", "firefox") and rng.random() < 0.8, "client_headers": ",".join(names),
            "header_order_signature": ";".join(names), "status_code": rng.choice((200, 200, 200, 304, 404, 401)),
            "response_size": rng.randrange(100, 90_000), "duration_ms": rng.randrange(1, 400),
            **{f"header_{name}": value for name, value in headers.items()}}


def lines(rows: list[dict]) -> str:
    """As JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


LISTS = {
    "iplocate-ip-to-asn.csv": "network,asn,country_code,name,org,domain\n"
        "198.51.100.0/24,64496,FR,EXAMPLE-RESIDENTIAL,Example Residential,residential.example\n"
        "198.51.100.64/26,64497,FR,EXAMPLE-MOBILE,Example Mobile,mobile.example\n203.0.113.0/24,64500,US,EXAMPLE-CLOUD,Example Cloud,cloud.example\n"
        "2001:db8::/33,64510,DE,EXAMPLE-SIX,Example Six,six.example\n",
    "bot_ip.csv": "prefix,bot_name\n203.0.113.0/29,ExampleBot\n2001:db8:64::/48,SixBot\n",
    "bot_ja4.csv": f"ja4,bot_name\n{CURL},curl\n",
    "asn_reputation.csv": "src_asn,label\n64496,human\n64500,bot\n",
    "browser_ja4.csv": f"ja4,browser_family,tls_library,context\n{CHROME},Chrome,BoringSSL,desktop\n{FIREFOX},Firefox,NSS,desktop\n",
}
