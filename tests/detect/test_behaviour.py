"""rules/behaviour.yaml over clients that are made by hand: how they move through a site, at two hosts and with two JA4."""

import json

from tests.support import OK, PIPELINES, Case, lines

# A whole hour, in ns.
START = 1_795_446_000_000_000_000
SECOND = 1_000_000_000
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"

PIPELINE = f"""\
name: behaviour
data_dir: data
nodes:
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }}
  - {{ id: known, kind: derive, from: requests, columns: [{{ name: ja4, expr: "arrow_cast(header_x_trace_id, 'Utf8')" }}] }}
  - id: features
    kind: aggregate
    from: known
    by: [host, src_ip, ja4]
    features: [NEEDED, {PIPELINES}/features/behaviour.yaml]
  - {{ id: clients, kind: peers, from: features, by: [window_start, src_ip], columns: {PIPELINES}/features/client_behaviour.yaml }}
  - {{ id: ruled, kind: detect.rules, from: clients, keep: all, rules: {PIPELINES}/rules/behaviour.yaml }}
  - {{ id: out, kind: sink.jsonl, from: ruled, path: out.jsonl }}
"""

# Of standard.yaml and peer_keys.yaml, what the rules and the columns of clients use.
NEEDED = (
    "hits",
    "uniq_paths",
    "login_posts",
    "login_failures",
    "health_path_ratio",
    "http_library_ratio",
    "user_agent",
)


def features() -> str:
    """The entries of these names, as a file of their own."""
    found = {}
    for name in ("standard", "peer_keys"):
        text = (PIPELINES / f"features/{name}.yaml").read_text()
        for entry in text.split("\n- name: ")[1:]:
            found[entry.split("\n", 1)[0]] = "- name: " + entry
    return "\n".join(found[name] for name in NEEDED)


def get(path: str, site: str = "same-origin", mode: str = "navigate", **more) -> dict:
    """A request of a browser."""
    led = {} if site == "none" else {"header_Referer": "https://www.example.test/from.html"}
    return (
        {
            "method": "GET",
            "path": path,
            "status_code": 200,
            "header_Sec-Fetch-Site": site,
            "header_Sec-Fetch-Mode": mode,
        }
        | led
        | more
    )


def parts(*paths: str) -> list[dict]:
    """What a page needs."""
    return [get(path, mode="no-cors") for path in paths]


def login(site: str, status: int) -> dict:
    """A form that is sent."""
    return get("/login", site, method="POST", status_code=status)


PAGES = [f"/{number}.html" for number in range(8)]
LOOK = parts("/a.css", "/a.js", "/favicon.ico")

# Who does all in the same distance of time; the others read one page longer than another.
BY_THE_CLOCK = ("watches prices", "loads again by a timer", "polls", "a monitor")
# Name, requests, and the rules that they match.
CLIENTS = [
    ("follows links", [get("/", "none"), *LOOK, *map(get, PAGES)], set()),
    ("full cache, no scripts", [get("/", "none"), *map(get, PAGES)], set()),
    (
        "bookmarks, then a link",
        [get(path, "none") for path in PAGES[:6]] + LOOK + [get(path) for path in PAGES[:2]],
        set(),
    ),
    ("loads again", [get("/", "none")] * 12 + LOOK, set()),
    ("an open page that asks", [get("/api/status", mode="cors")] * 30, set()),
    (
        "an office",
        [get(path, "none", **{"header_X-Forwarded-For": "10.0.0.1"}) for path in PAGES[:2]]
        + LOOK * 3
        + [get("/1.html")] * 3,
        set(),
    ),
    (
        "mistypes twice",
        [
            get("/login.html", "none"),
            *LOOK,
            login("same-origin", 401),
            login("same-origin", 401),
            login("same-origin", 303),
            get("/"),
        ],
        set(),
    ),
    ("a letter with three links", [get(path, "none") for path in PAGES[:3]] + LOOK, {"seldom_follows_a_link"}),
    (
        "a list in a browser",
        [get(path, "none") for path in PAGES] + LOOK,
        {"never_follows_a_link", "seldom_follows_a_link"},
    ),
    (
        "a list in a library",
        [get(path, "none") for path in PAGES],
        {"never_follows_a_link", "seldom_follows_a_link", "pages_without_their_parts"},
    ),
    (
        "pages as data",
        [get(path, mode="cors") | {"header_Referer": None} for path in PAGES],
        {"pages_without_their_parts"},
    ),
    ("keeps nothing", (parts("/a.css", "/a.js") + [get("/1.html")]) * 6, set()),
    ("sends by itself", [get("/", "none"), *LOOK, *[login("none", 303)] * 3], {"post_from_no_page"}),
    (
        "says both",
        [get(path, "none", **{"header_Referer": "https://search.test/"}) for path in PAGES[:2]] + LOOK,
        {"contradicting_referer"},
    ),
    ("guesses", [get("/login.html", "none"), *LOOK, get("/")] + [login("same-origin", 401)] * 6, {"logins_that_fail"}),
    ("one guess an address", [get("/login.html", "none"), login("same-origin", 401)], {"nothing_but_failed_logins"}),
    (
        "fills a cart",
        [get("/1.html", "none"), *LOOK] + [get("/api/cart", mode="cors", method="POST")] * 9,
        set(),
    ),
    ("watches prices", [get(path, "none") for path in PAGES[:3] * 4] + LOOK, {"seldom_follows_a_link", "pages_by_the_clock"}),
    ("loads again by a timer", [get("/1.html")] * 12 + LOOK, set()),
    ("polls", [get("/api/status", "none")] * 12, {"one_address_only", "pages_without_their_parts"}),
    ("a monitor", [get("/health", "none")] * 12, set()),
]


class Behaviour(Case):
    """Each rule, and what it must leave alone."""

    def test_each_client(self) -> None:
        self.write("needed.yaml", features())
        self.write("requests.jsonl", "".join(json.dumps(row) + "\n" for row in requests(one_host=True)))
        self.assert_exit(self.engine("run", "-q", self.write("p.yaml", PIPELINE.replace("NEEDED", "needed.yaml"))), OK)
        self.check({row["src_ip"]: row.get("rules") for row in lines(self.directory / "out.jsonl")})

    def test_a_client_at_two_hosts(self) -> None:
        """Parts on another host, pages over a resumed connection: every group has what its client has."""
        self.write("needed.yaml", features())
        self.write("requests.jsonl", "".join(json.dumps(row) + "\n" for row in requests(one_host=False)))
        self.assert_exit(self.engine("run", "-q", self.write("p.yaml", PIPELINE.replace("NEEDED", "needed.yaml"))), OK)
        found = {}
        for row in lines(self.directory / "out.jsonl"):
            rules = set((row.get("rules") or "").split(",")) - {""}
            found[row["src_ip"]] = found.get(row["src_ip"], set()) | rules
        for number, (name, sent, expected) in enumerate(CLIENTS):
            # A rule about one address, or about the times that one was asked, goes by the group.
            with self.subTest(name):
                for rule in ("never_follows_a_link", "seldom_follows_a_link", "pages_without_their_parts"):
                    self.assertEqual(rule in found[address(number)], rule in expected)

    def check(self, found: dict) -> None:
        """The rules of each client."""
        self.assertEqual(len(found), len(CLIENTS))
        for number, (name, _, expected) in enumerate(CLIENTS):
            with self.subTest(name):
                self.assertEqual(set((found[address(number)] or "").split(",")) - {""}, expected)


def address(number: int) -> str:
    """The address of a client."""
    return f"192.0.2.{number + 1}"


def requests(one_host: bool) -> list[dict]:
    """All requests in the order of time."""
    made = []
    for number, (name, sent, _) in enumerate(CLIENTS):
        for nth, request in enumerate(sent):
            pause = 0 if name in BY_THE_CLOCK else nth * 7 % 5
            part = request.get("header_Sec-Fetch-Mode") == "no-cors"
            made.append(
                {
                    "src_ip": address(number),
                    "src_port": 40_000 + number,
                    "dst_ip": "198.51.100.1",
                    "dst_port": 443,
                    "scheme": "https",
                    "timestamp": START + (number * 100 + 2 * nth) * SECOND + pause * SECOND // 3,
                    "http_version": "HTTP/2.0",
                    "header_User-Agent": CHROME,
                    "host": "www.example.test" if one_host or not part else "parts.example.test",
                    "header_X-Trace-Id": "fresh" if one_host or nth < 2 else "resumed",
                }
                | {key: value for key, value in request.items() if value is not None}
            )
    return made
