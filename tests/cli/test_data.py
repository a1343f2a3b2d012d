"""Reference data: the forms of files of networks, their age, and the commands `data status` and `data fetch`."""

import gzip
import hashlib
import http.server
import io
import json
import os
import random
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

from tests.support import FAILED, OK, PIPELINES, REFUSED, Case, get, lines, running, served, wait_for

SEED = int(os.environ.get("SEED") or 20261201)
DAY = 86_400
BUILT = 1_780_000_000
START = 1_795_446_000
LOG = "  - { id: log, kind: source.file, path: access.log, format: reqin_log }\n"
OUT = "  - { id: out, kind: sink.jsonl, from: labelled, path: out.jsonl }\n"


# A writer of MaxMind DB files: https://maxmind.github.io/MaxMind-DB/
def value(data: object) -> bytes:
    """A value of the data section."""

    def head(kind: int, size: int) -> bytes:
        extended = b"" if kind <= 7 else bytes([kind - 7])
        kind = kind if kind <= 7 else 0
        if size < 29:
            return bytes([kind << 5 | size]) + extended
        return bytes([kind << 5 | 29]) + extended + bytes([size - 29])

    if isinstance(data, dict):
        return head(7, len(data)) + b"".join(value(key) + value(item) for key, item in data.items())
    if isinstance(data, list):
        return head(11, len(data)) + b"".join(map(value, data))
    if isinstance(data, str):
        return head(2, len(data.encode())) + data.encode()
    kind, number = data
    raw = number.to_bytes({5: 2, 6: 4, 9: 8}[kind], "big").lstrip(b"\0")
    return head(kind, len(raw)) + raw


def mmdb(networks: dict[str, dict], built: int = BUILT) -> bytes:
    """A database of IPv6 with these networks; those of IPv4 are in its ::/96. The order is that of the lengths."""
    nodes, data, places = [[None, None]], bytearray(), {}
    for text, record in sorted(networks.items(), key=lambda item: ip_network(item[0]).prefixlen + 96 * (":" not in item[0])):
        network = ip_network(text)
        raw = value(record)
        places.setdefault(raw, len(data))
        if places[raw] == len(data):
            data += raw
        address = int(network.network_address)
        length = network.prefixlen + (96 if network.version == 4 else 0)
        node = 0
        for depth in range(length):
            side = address >> (127 - depth) & 1
            if depth == length - 1:
                nodes[node][side] = ("data", places[raw])
            else:
                if not isinstance(nodes[node][side], int):
                    nodes.append([nodes[node][side]] * 2)
                    nodes[node][side] = len(nodes) - 1
                node = nodes[node][side]

    def number(slot: object) -> int:
        if slot is None:
            return len(nodes)
        return slot if isinstance(slot, int) else len(nodes) + 16 + slot[1]

    tree = b"".join(number(slot).to_bytes(3, "big") for node in nodes for slot in node)
    metadata = {
        "binary_format_major_version": (5, 2), "binary_format_minor_version": (5, 0), "build_epoch": (9, built),
        "database_type": "Test", "description": {}, "ip_version": (5, 6), "languages": [],
        "node_count": (6, len(nodes)), "record_size": (5, 24),
    }
    return tree + bytes(16) + bytes(data) + b"\xab\xcd\xefMaxMind.com" + value(metadata)


def system(number: int, org: str) -> dict:
    """A record as in databases of systems."""
    return {"autonomous_system_number": (6, number), "autonomous_system_organization": org}


def package(name: str, files: dict[str, str]) -> bytes:
    """An archive as npm has it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in files.items() | {("package.json", json.dumps({"name": name, "version": "2.3.2026061719"}))}:
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@contextmanager
def server(files: dict[str, bytes]) -> Iterator[str]:
    """The base URL of an HTTP server of these files."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path.lstrip("/"))
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("Last-Modified", "Wed, 17 Jun 2026 19:00:00 GMT")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running_server:
        threading.Thread(target=running_server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running_server.server_address[1]}"
        finally:
            running_server.shutdown()


class Networks(Case):
    """`enrich.asn` and the forms that its files have."""

    def label(self, files: str, addresses: list[str]) -> dict[str, tuple]:
        """System, country and organisation of addresses, by a pipeline."""
        rows = [{"timestamp": (START + nth) * 10**9, "src_ip": address, "method": "GET", "path": "/"} for nth, address in enumerate(addresses)]
        self.write("access.log", "".join(json.dumps(row) + "\n" for row in rows))
        text = f"name: data\nnodes:\n{LOG}  - {{ id: labelled, kind: enrich.asn, from: log, file: {files} }}\n{OUT}"
        self.assert_exit(self.engine("run", "-q", self.write("p.yaml", text)), OK)
        found = lines(self.directory / "out.jsonl")
        self.assertEqual(len(found), len(addresses))
        return {row["src_ip"]: (row.get("src_asn"), row.get("src_country_code"), row.get("src_org")) for row in found}

    def test_ranges_of_both_versions(self) -> None:
        """As the package has them; the name of the file does not matter."""
        self.write("list.txt", '1.0.0.0,1.0.0.255,13335,"Cloudflare, Inc."\n1.0.0.128,1.0.2.255,7,Other\n2001:db8::,2001:db8::ff,8,Six\n')
        found = self.label("list.txt", ["1.0.0.127", "1.0.0.128", "1.0.2.255", "1.0.3.0", "2001:db8::ff", "2001:db8::100", "::ffff:1.0.0.1"])
        self.assertEqual([row[0] for row in found.values()], [13335, 7, 7, None, 8, None, 13335])
        self.assertEqual(found["1.0.0.127"][2], "Cloudflare, Inc.")

    def test_a_database_is_what_a_scan_of_its_networks_says(self) -> None:
        """At random addresses, beside a second database that has the countries."""
        rng = random.Random(SEED)
        networks = {}
        for number in range(300):
            if rng.random() < 0.5:
                network = ip_network((rng.getrandbits(32) & 0x0F0F0FFF, rng.randrange(8, 33)), strict=False)
            else:
                network = ip_network((0x20010DB8 << 96 | rng.getrandbits(20) << 76, rng.randrange(33, 60)), strict=False)
            networks[str(network)] = system(number + 1, f"Org {number}")
        self.write("systems", mmdb(networks))
        countries = {"8.0.0.0/5": {"country": {"iso_code": "FR", "names": {"en": "France"}}}, "2001:db8::/33": {"country_code": "DE"}}
        self.write("countries", mmdb(countries))
        addresses = {str(ip_network(text)[rng.randrange(2 ** min(20, ip_network(text).max_prefixlen - ip_network(text).prefixlen))]) for text in networks}
        addresses |= {str(ip_address(rng.getrandbits(32) & 0x0F0F0FFF)) for _ in range(300)}

        def best(address: str, of: dict) -> dict:
            holding = [network for network in map(ip_network, of) if ip_address(address) in network]
            return of[str(max(holding, key=lambda network: network.prefixlen))] if holding else {}

        for address, (asn, country, org) in self.label("[systems, countries]", sorted(addresses)).items():
            record = best(address, networks)
            self.assertEqual(asn, record["autonomous_system_number"][1] if record else None, address)
            self.assertEqual(org, record.get("autonomous_system_organization"), address)
            expected = best(address, countries)
            self.assertEqual(country, expected.get("country_code") or expected.get("country", {}).get("iso_code"), address)

    def test_wrong_files_are_refused_with_their_place(self) -> None:
        """Rows by line, databases by byte."""
        good = mmdb({"10.0.0.0/8": system(1, "x")})
        for content, says in [
            (b"1.0.0.0,1.0.0.9,1,x\n2.0.0.9,2.0.0.1,1,x\n", "list:2: the range ends at `2.0.0.1`"),
            (b"16777216,16777471,13335,x\n", "list:1: the header has no column `network`"),
            (good[:-40], "list:byte "),
            (good[: len(good) // 2], "list:byte "),
            (gzip.compress(good), "list:byte "),
            (mmdb({"10.0.0.0/8": {"city": "x"}}), "has neither systems nor countries"),
            (mmdb({"10.0.0.0/8": {"asn": "x"}}), "`x` is not an AS number"),
        ]:
            self.write("list", content)
            self.write("access.log", "")
            text = f"name: data\nnodes:\n{LOG}  - {{ id: labelled, kind: enrich.asn, from: log, file: list }}\n{OUT}"
            self.assert_exit(self.engine("validate", self.write("p.yaml", text)), REFUSED, says)
        twice = text.replace("file: list", "file: [list, list]")
        self.write("list", good)
        self.assert_exit(self.engine("validate", self.write("p.yaml", twice)), REFUSED, "this file is named twice")


class Age(Case):
    """A list that is too old is said, and a newer one ends that."""

    def test_old_data_is_a_trouble_until_it_is_replaced(self) -> None:
        """Of a database by what it says, not by the time of its file."""
        self.write("asn", mmdb({"10.0.0.0/8": system(1, "x")}, built=int(time.time()) - 90 * DAY))
        self.write("labels.csv", "src_asn,label\n1,bot\n")
        pipeline = self.write("p.yaml", """\
name: age
data_dir: data
nodes:
  - { id: rows, kind: source.unix_socket, path: rows.socket, columns: { time: time, src_ip: text } }
  - { id: labelled, kind: enrich.asn, from: rows, file: asn, max_age: 30d }
  - { id: known, kind: enrich.reputation, from: labelled, file: labels.csv, max_age: 30d }
serve: { listen: 127.0.0.1:0, tables: { rows: known } }
""")
        with running("run", pipeline, log=self.directory / "log"):
            base = served(self.directory / "log")

            def node(name: str) -> dict:
                nodes = json.loads(get(f"{base}/status")[1])["nodes"]
                return next(node for node in nodes if node["id"] == name)

            troubles = node("labelled")["troubles"]
            self.assertEqual(len(troubles), 1)
            self.assertIn("90 days old; `max_age` is 30 days", next(iter(troubles.values())))
            self.assertEqual(node("known")["troubles"], {})
            path = str(self.directory / "asn")
            self.assertEqual([reference["file"] for reference in node("labelled")["references"]], [path])
            self.assertAlmostEqual(node("labelled")["references"][0]["age_seconds"], 90 * DAY, delta=3600)
            metrics = get(f"{base}/metrics")[1]
            self.assertRegex(metrics, rf'ja4_engine_reference_age_seconds{{node="labelled",kind="enrich.asn",file="{path}"}} 77\d+')
            self.assertIn(f'ja4_engine_node_trouble{{node="labelled",kind="enrich.asn",part="age {path}"}} 1', metrics)
            self.assertIn("90 days old", (self.directory / "log").read_text())
            shown = self.engine("status", "--url", base).stdout
            self.assertIn(f"{path}: 90 days old", shown)
            new = self.write("new", mmdb({"10.0.0.0/8": system(2, "y")}, built=int(time.time()) - DAY))
            new.rename(self.directory / "asn")
            wait_for("the newer database", lambda: not node("labelled")["troubles"])
            self.assertLess(node("labelled")["references"][0]["age_seconds"], 2 * DAY)


class Status(Case):
    """`data status`."""

    def shown(self, *arguments: object, code: int = OK) -> list[dict]:
        """What it says of files, as JSON."""
        run = self.engine("data", "status", "--format", "json", *arguments)
        self.assert_exit(run, code)
        return json.loads(run.stdout)

    def test_files_are_known_by_their_content(self) -> None:
        """With entries and age; what was not fetched has no source."""
        self.write("a", mmdb({"10.0.0.0/8": system(1, "x"), "2001:db8::/32": system(2, "y")}))
        self.write("b", "1.0.0.0,1.0.0.9,1,x\n1.0.0.5,1.0.0.9,2,x\n")
        os.utime(self.directory / "b", (BUILT, BUILT))
        reference = PIPELINES / "reference"
        found = self.shown(self.directory / "a", self.directory / "b", *(reference / name for name in (
            "bot_ip.csv", "bot_ja4.csv", "crawlers.csv", "asn_reputation.csv", "browser_ja4.csv", "crawler-user-agents.json")))
        self.assertEqual([row["read_as"] for row in found], [
            "enrich.asn file", "enrich.asn file", "enrich.bots networks", "enrich.bots ja4", "enrich.bots crawlers",
            "enrich.reputation file", "enrich.browser file", "enrich.bots agents",
        ])
        self.assertEqual((found[0]["what"], found[0]["entries"], found[0]["day"]), ("MaxMind DB `Test`", 2, "2026-05-28"))
        self.assertEqual((found[1]["day"], found[1]["note"]), ("2026-05-28", "1 of the ranges overlap another"))
        self.assertEqual((found[-1]["entries"], found[-1]["licence"]), (1500, "MIT"))
        self.assertNotIn("changed since", found[-1]["source"], "sources.json is of the file that is shipped")
        self.assertIsNone(found[2]["source"])
        text = self.engine("data", "status", self.directory / "a").stdout
        self.assertIn("enrich.asn file: MaxMind DB `Test`, 2 entries\n", text)
        self.assertIn("  licence: not known\n", text)

    def test_a_pipeline_with_missing_and_broken_files(self) -> None:
        """Says so of each; what can be fetched is named."""
        self.write("labels.csv", "src_asn,label\nx,bot\n")
        pipeline = self.write("p.yaml", f"""name: data
nodes:
{LOG}  - {{ id: labelled, kind: enrich.asn, from: log, file: [asn.csv, countries.mmdb] }}
  - {{ id: known, kind: enrich.reputation, from: labelled, file: labels.csv }}
  - {{ id: bots, kind: enrich.bots, from: known, crawlers: crawlers.csv, agents: "${{AGENTS}}" }}
""")
        agents = PIPELINES / "reference/crawler-user-agents.json"
        run = self.engine("data", "status", "--format", "json", pipeline, environment={"AGENTS": agents})
        self.assert_exit(run, FAILED)
        found = json.loads(run.stdout)
        self.assertEqual([row["nodes"] for row in found], [["labelled"], ["labelled"], ["known"], ["bots"], ["bots"]])
        faults = [row["fault"] for row in found]
        self.assertEqual(faults[0], "it is missing; `ja4-engine data fetch` knows asn, country")
        self.assertEqual(faults[2], "2: `x` is not an AS number")
        # In the order of the options, not as they are written.
        self.assertEqual([faults[3], faults[4]], [None, "it is missing; `ja4-engine data fetch` knows crawlers"])
        self.assert_exit(self.engine("data", "status", pipeline), REFUSED, "AGENTS")
        self.assert_exit(self.engine("data", "status", self.directory / "none"), FAILED)

    def test_lists_that_can_be_fetched(self) -> None:
        """With source and licence."""
        shown = self.engine("data", "status").stdout
        for text in ("@ip-location-db/asn, CC-BY-4.0", "npm crawler-user-agents, MIT", "common-crawlers.json", "crawlers.csv"):
            self.assertIn(text, shown)


class Fetch(Case):
    """`data fetch`."""

    ROWS = {"asn-ipv4.csv": '1.0.0.0,1.0.0.255,13335,"Cloudflare, Inc."\n', "asn-ipv6.csv": "2001:db8::,2001:db8::ff,8,Six\n"}

    def fetch(self, *arguments: object, **options: object):
        """Runs it for the folder `lists`."""
        return self.engine("data", "fetch", "--to", self.directory / "lists", *arguments, **options)

    def test_a_package_becomes_a_list_with_its_date_and_source(self) -> None:
        """From an archive, by a URL, and as npm brings it."""
        archive = package("@ip-location-db/asn", self.ROWS)
        path = self.write("package.tgz", archive)
        (self.directory / "bin").mkdir()
        npm = self.write("bin/npm", f"""#!/bin/sh
case $1 in
pack) [ "$6" = @ip-location-db/asn ] && cp {path} "$5/ip-location-db-asn.tgz" ;;
view) echo 2026-06-18T01:02:03.000Z ;;
esac
""")
        npm.chmod(0o755)
        with server({"package.tgz": archive}) as base:
            ways = [["--from", path], ["--from", f"{base}/package.tgz"], []]
            for way in ways:
                run = self.fetch("asn", *way, environment={"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}"})
                self.assert_exit(run, OK)
                for text in ("CSV of ranges, 2 entries, of 2026-06-17", "licence: CC-BY-4.0", "DB-IP", "2.3.2026061719"):
                    self.assertIn(text, run.stdout)
                list_ = self.directory / "lists/asn.csv"
                self.assertEqual(list_.read_text(), "".join(self.ROWS.values()))
                list_.unlink()
            self.assert_exit(self.fetch("asn", "--from", f"{base}/none"), FAILED, "curl", "404")
        self.assert_exit(self.fetch("asn", "--from", path), OK)
        note = json.loads((self.directory / "lists/sources.json").read_text())["asn.csv"]
        self.assertEqual(note["sha256"], hashlib.sha256("".join(self.ROWS.values()).encode()).hexdigest())
        run = self.engine("data", "status", "--format", "json", self.directory / "lists/asn.csv")
        found = json.loads(run.stdout)[0]
        self.assertEqual((found["day"], found["licence"]), ("2026-06-17", "CC-BY-4.0"))
        with (self.directory / "lists/asn.csv").open("a") as file:
            file.write("9.0.0.0,9.0.0.1,1,x\n")
        run = self.engine("data", "status", "--format", "json", self.directory / "lists/asn.csv")
        self.assertIn(", changed since", json.loads(run.stdout)[0]["source"])

    def test_a_database_keeps_its_form(self) -> None:
        """And is named by it."""
        self.assert_exit(self.fetch("country", "--from", self.write("x", mmdb({"10.0.0.0/8": {"country_code": "FR"}}))), OK)
        self.assert_exit(self.fetch("asn", "--from", self.write("y", mmdb({"10.0.0.0/8": system(1, "x")}))), OK)
        names = {path.name for path in (self.directory / "lists").iterdir()}
        self.assertEqual(names, {"country.mmdb", "asn.mmdb", "sources.json"})
        note = json.loads((self.directory / "lists/sources.json").read_text())["asn.mmdb"]
        self.assertEqual((note["licence"], note.get("attribution")), ("not known; it came by --from", None), "it may be any database")

    def test_what_cannot_be_read_changes_nothing(self) -> None:
        """The list that was there stays, and no other file is left."""
        self.assert_exit(self.fetch("asn", "--from", self.write("good", self.ROWS["asn-ipv4.csv"])), OK)
        before = {path.name: path.read_bytes() for path in (self.directory / "lists").iterdir()}
        archive = package("x", self.ROWS)
        for content, says in [
            (b"1.0.0.0,1.0.0.9,x,y\n", "1: `x` is not an AS number"),
            (b"", "no column `network`"),
            (b"network,asn,country_code,name,org,domain\n", "the list is empty"),
            (archive[: len(archive) // 2], "the archive is damaged"),
            (package("x", {"asn-ipv4.csv": "1.0.0.0,1.0.0.9,1,x\n"}), "the archive has no file `asn-ipv6.csv`"),
        ]:
            run = self.fetch("asn", "--from", self.write("bad", content))
            self.assert_exit(run, FAILED, says, "what was there stays")
            self.assertEqual({path.name: path.read_bytes() for path in (self.directory / "lists").iterdir()}, before)
        self.assert_exit(self.fetch("asm"), REFUSED, "did you mean `asn`?")
        self.assert_exit(self.fetch("asn", "country", "--from", "x"), REFUSED, "--from gives one list")
        self.assert_exit(self.fetch("asn", "--from", self.directory / "none"), FAILED, "cannot be read")
        without = {"PATH": self.directory}
        self.assert_exit(self.fetch("asn", environment=without), FAILED, "npm cannot be run", "--from")
        self.assert_exit(self.fetch("bingbot", environment=without), FAILED, "curl cannot be run", "--from")

    def published(self, day: str, *prefixes: str) -> str:
        """A list as makers of crawlers publish them."""
        of = [{f"ipv{ip_network(prefix).version}Prefix": prefix} for prefix in prefixes]
        return json.dumps({"creationTime": f"{day}T14:46:09.000000", "prefixes": of})

    def test_lists_of_crawlers_verify_by_address_and_name(self) -> None:
        """Each list replaces its own rows; only who names the crawler whose list has the address is verified."""
        lists = {
            "googlebot": self.published("2026-08-10", "192.0.2.0/27", "2001:db8:1::/64"),
            "bingbot": self.published("2026-08-12", "198.51.100.0/24"),
        }
        for name, text in lists.items():
            self.assert_exit(self.fetch(name, "--from", self.write(f"{name}.json", text)), OK)
        newer = self.published("2026-09-01", "192.0.2.0/28", "2001:db8:1::/64")
        self.assert_exit(self.fetch("googlebot", "--from", self.write("googlebot.json", newer)), OK)
        run = self.fetch("gptbot", "--from", self.write("gptbot.json", "<html>not found</html>"))
        self.assert_exit(run, FAILED, "gptbot: line 1")
        rows = (self.directory / "lists/crawlers.csv").read_text().splitlines()
        self.assertEqual(rows[0], "prefix,crawler,agent,date")
        self.assertIn("192.0.2.0/28,Googlebot,Googlebot,2026-09-01", rows)
        self.assertIn("198.51.100.0/24,Bingbot,bingbot,2026-08-12", rows)
        self.assertFalse(any("192.0.2.0/27" in row for row in rows))
        found = json.loads(self.engine("data", "status", "--format", "json", self.directory / "lists/crawlers.csv").stdout)[0]
        self.assertEqual((found["day"], found["entries"]), ("2026-08-12", 3))

        google, bing, browser = "Mozilla/5.0 (compatible; Googlebot/2.1)", "Mozilla/5.0 (compatible; bingbot/2.0)", "Mozilla/5.0 Firefox/140.0"
        cases = [
            ("192.0.2.1", google, True, "Googlebot"),
            ("::ffff:192.0.2.1", google, True, "Googlebot"),
            ("2001:db8:1::9", "GoogleOther", True, "Googlebot"),
            ("192.0.2.16", google, False, None),
            ("198.51.100.1", google, False, "Bingbot"),
            ("198.51.100.1", bing, True, "Bingbot"),
            ("192.0.2.1", browser, None, "Googlebot"),
            ("203.0.113.1", browser, None, None),
            ("203.0.113.1", bing, False, None),
        ]
        log = [
            {"timestamp": (START + nth) * 10**9, "src_ip": address, "method": "GET", "path": f"/{nth}", "header_User-Agent": agent}
            for nth, (address, agent, _, _) in enumerate(cases)
        ]
        self.write("access.log", "".join(json.dumps(row) + "\n" for row in log))
        agents = PIPELINES / "reference/crawler-user-agents.json"
        text = f"""name: data
nodes:
{LOG}  - {{ id: labelled, kind: enrich.bots, from: log, crawlers: lists/crawlers.csv, agents: {agents} }}
{OUT}"""
        self.assert_exit(self.engine("run", "-q", self.write("p.yaml", text)), OK)
        by_path = {row["path"]: row for row in lines(self.directory / "out.jsonl")}
        for nth, (address, agent, verified, crawler) in enumerate(cases):
            row = by_path[f"/{nth}"]
            self.assertEqual((row.get("bot_verified"), row.get("bot_crawler")), (verified, crawler), (address, agent))
        self.assertEqual((by_path["/0"]["bot_tags"], by_path["/0"]["bot_name"]), ("search-engine", "Googlebot"))
        self.assertIsNone(by_path["/3"].get("bot_name"), "an impostor's own name is not its name")

    def test_the_shipped_list_is_what_fetch_takes(self) -> None:
        """So that a newer one can be put in its place."""
        agents = PIPELINES / "reference/crawler-user-agents.json"
        self.assert_exit(self.fetch("crawler-user-agents", "--from", agents), OK)
        self.assertEqual((self.directory / "lists/crawler-user-agents.json").read_bytes(), Path(agents).read_bytes())
