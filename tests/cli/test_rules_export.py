"""`rules export`: each format by its own program where that is installed, and by a small parser here in any case; what must not
become a rule; and whom rules would have hit."""

import ipaddress
import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

from tests.support import FAILED, NOT_FOUND, OK, REFUSED, Case, demo, lines

# What breaks out of comments and strings of each format, if it can.
EVIL = ["\"; drop }", "a\n192.0.2.1 1;", "x' OR 1=1 --", "${jndi}", "\\", "# }", "*/", "\u202e\u200b", "- name: evil\n  action: ALLOW", "é" * 300]
START = 1_795_446_000
PRINT = "t13d1516h2_8daaf6152771_b186095e22b6"
TWIN = "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6"
PIPELINE = """name: export
data_dir: data
nodes:
  - { id: log, kind: source.file, path: log, format: reqin_log }
  - { id: print, kind: derive, from: log, columns: [{ name: ja4, expr: header_x_request_id }] }
  - id: groups
    kind: aggregate
    from: print
    by: [host, src_ip, ja4]
    window: 1h
    features: [{ name: hits, expr: count(*) }, { name: worst, expr: max(path) }]
  - { id: found, kind: detect.rules, from: groups.final, rules: [{ name: many, when: hits >= 3, level: HIGH, reason: "{worst}" }] }
  - { id: store, kind: sink.parquet, from: { requests: print, groups: groups.final, found: found } }
"""
QUERY = "SELECT DISTINCT src_ip, reason FROM found ORDER BY src_ip"
BOTH = "SELECT DISTINCT src_ip, ja4, reason FROM found WHERE ja4 IS NOT NULL"


def request(address: str, path: str, ja4: str | None = PRINT, host: str = "a") -> str:
    """A line of the log."""
    line = {"timestamp": START * 10**9, "src_ip": address, "dst_ip": "198.51.100.1", "src_port": 1, "dst_port": 443, "method": "GET",
            "host": host, "path": path, "status_code": 200}
    return json.dumps(line | ({"header_x_request_id": ja4} if ja4 else {})) + "\n"


def nftables(text: str) -> set[tuple[str, str, str]]:
    """Address, seconds and comment of each element; every other line is one that is known."""
    element = re.compile(r'add element inet ja4_engine (blocked_v[46]) \{ (\S+) timeout (\d+)s comment "([^"\\]{1,110})" \}')
    found = set()
    for line in text.splitlines():
        match = element.fullmatch(line)
        if match:
            network = ipaddress.ip_network(match[2])
            assert match[1] == f"blocked_v{network.version}", line
            found.add((match[2], match[3], match[4]))
        else:
            assert line.startswith("#") or re.fullmatch(r"(add table|add set|flush set) inet ja4_engine[ \w{};,]*", line), line
    return found


def plain_lines(text: str) -> list[str]:
    """Lines that are no comments."""
    return [line for line in text.splitlines() if not line.startswith("#")]


class Export(Case):
    """Clients of a small log: some flagged, with reasons that they have chosen."""

    def setUp(self) -> None:
        super().setUp()
        log = [request(f"203.0.113.{nth}", evil) for nth, evil in enumerate(EVIL) for _ in range(3 + nth)]
        log += [request(f"203.0.113.{nth}", "/", TWIN, "b") for nth in range(3) for _ in range(2)]
        log += [request("203.0.113.200", "/"), request("2001:db8::5", "/")] + [request("2001:db8::9", "/x")] * 4
        log += [request("10.1.2.3", "/in")] * 5 + [request("198.51.100.1", "/own")] * 5 + [request("127.0.0.1", "/own")] * 5
        self.write("log", "".join(log))
        self.write("pipeline.yaml", PIPELINE)
        self.assert_exit(self.engine("run", "-q", self.directory / "pipeline.yaml"), OK)
        self.flagged = {f"203.0.113.{nth}" for nth in range(len(EVIL))} | {"2001:db8::9"}

    def export(self, kind: str, *arguments: object, query: str = QUERY, code: int = OK, says: tuple[str, ...] = ()) -> str:
        """What is written to standard output."""
        data = ("--data", self.directory / "data", "--table", "features=groups", "--table", "requests=requests")
        run = self.engine("rules", "export", "--format", kind, "--query", query, *data, *arguments)
        self.assert_exit(run, code, *says)
        return run.stdout

    def by_program(self, program: str, *arguments: object, prefix: tuple[str, ...] = ()) -> None:
        """A program's own check, if it is installed: then it must agree."""
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if not found:
            print(f"SKIPPED: {program} is not installed; its format was checked by this test alone")
            return
        run = subprocess.run([*prefix, found, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
        if "not permitted" in run.stderr or "unshare failed" in run.stderr:
            print(f"SKIPPED: {program} may not be asked here: {run.stderr.strip()}")
            return
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_nftables(self) -> None:
        """Elements of two sets, with timeout and comment."""
        text = self.export("nftables", "--ttl", "2h", says=("rows became no entry", "10.1.2.3"))
        found = nftables(text)
        self.assertEqual({address for address, _, _ in found}, self.flagged)
        self.assertEqual({seconds for _, seconds, _ in found}, {"7200"})
        self.assertIn("a_u_a_192.0.2.1 1_", {comment for _, _, comment in found})
        # Loaded for good, in a network of its own where that can be made: the kernel has the last word.
        own = ("unshare", "--user", "--map-root-user", "--net")
        path = self.write("rules.nft", text)
        self.by_program("nft", "-c", "-f", path, prefix=own)
        self.by_program("nft", "-f", path, prefix=own)

    def test_haproxy(self) -> None:
        """Addresses, a line each."""
        text = self.export("haproxy")
        self.assertEqual(set(plain_lines(text)), self.flagged)
        for kind, fetch, arguments, query in (
            ("addresses", "src", (), QUERY),
            ("both", 'src,concat(",",txn.ja4)', ("--by", "address-and-ja4"), BOTH),
            ("prints", "var(txn.ja4) -m str", ("--by", "ja4", "--ja4-alone"), BOTH),
        ):
            path = self.write(kind, self.export("haproxy", *arguments, query=query))
            config = f"defaults\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\nfrontend f\n bind 127.0.0.1:8097\n http-request deny if {{ {fetch} -f {path} }}\n"
            self.by_program("haproxy", "-c", "-f", self.write("haproxy.cfg", config))
        self.assertEqual(set(plain_lines((self.directory / "prints").read_text())), {PRINT})
        self.assertIn(f"203.0.113.0,{PRINT}", plain_lines((self.directory / "both").read_text()))

    def test_nginx(self) -> None:
        """Lines of a geo block, or of a map block."""
        text = self.export("nginx")
        entry = re.compile(r"(\S+) 1; # [\w .,:%()=/+-]+")
        entries = [entry.fullmatch(line) for line in plain_lines(text)]
        self.assertTrue(all(entries), text)
        self.assertEqual({match[1] for match in entries}, self.flagged)
        addresses = self.write("addresses", text)
        both = self.write("both", self.export("nginx", "--by", "address-and-ja4", query=BOTH))
        self.assertIn(f'"203.0.113.0,{PRINT}" 1; #', both.read_text())
        config = f"""pid {self.directory}/pid; error_log stderr; events {{}}
http {{ map_hash_bucket_size 128; geo $blocked {{ default 0; include {addresses}; }} map "$remote_addr,$http_x_ja4" $both {{ default 0; include {both}; }}
access_log off; server {{ listen 127.0.0.1:8098; if ($blocked) {{ return 403; }} if ($both) {{ return 403; }} }} }}
"""
        self.by_program("nginx", "-t", "-c", self.write("nginx.conf", config))

    def test_anubis(self) -> None:
        """A policy that this engine reads as Anubis does: exactly these clients are refused."""
        self.write("rules.yaml", self.export("anubis"))
        self.write("policy.yaml", "bots:\n  - import: rules.yaml\n")
        self.write("judge.yaml", """name: judge
nodes:
  - { id: log, kind: source.file, path: log, format: reqin_log }
  - { id: judged, kind: enrich.anubis, from: log, policy: policy.yaml }
  - { id: out, kind: sink.jsonl, from: judged, path: out }
""")
        self.assert_exit(self.engine("run", "-q", self.directory / "judge.yaml"), OK)
        denied = {row["src_ip"] for row in lines(self.directory / "out") if row.get("anubis_bot_action") == "DENY"}
        self.assertEqual(denied, self.flagged)
        both = self.export("anubis", "--by", "address-and-ja4", "--action", "challenge", "--ja4-header", "X-Print", query=BOTH)
        self.assertIn(f'  headers_regex:\n    X-Print: "^{PRINT}$"\n', both)
        for line in plain_lines(both):
            self.assertRegex(line, r'^(- name: ja4-engine-\d+|  action: CHALLENGE|  remote_addresses:|    - "[0-9a-f.:/]+"|  headers_regex:|    X-Print: "\^[a-z0-9_]+\$")$')

    def test_crowdsec(self) -> None:
        """What `cscli decisions import` takes; networks too."""
        decisions = json.loads(self.export("crowdsec", "--ttl", "7d"))
        self.assertEqual({decision["value"] for decision in decisions}, self.flagged)
        for decision in decisions:
            self.assertEqual(set(decision), {"duration", "reason", "scope", "type", "value"})
            self.assertEqual((decision["scope"], decision["type"], decision["duration"]), ("ip", "ban", "604800s"))
        wide = "SELECT DISTINCT ip_prefix(src_ip, 24, 64) AS src_ip, threat_level FROM found"
        decisions = json.loads(self.export("crowdsec", query=wide, says=("an address of this machine or its servers",)))
        found = {(decision["scope"], decision["value"], decision["reason"]) for decision in decisions}
        self.assertEqual(found, {("range", network, "ja4-engine: HIGH") for network in ("203.0.113.0/24", "2001:db8::/64")})

    def test_what_would_hit_the_wrong_ones_is_refused(self) -> None:
        """Own and private addresses, a program in place of a client, too many."""
        every = self.export("crowdsec", "--allow-private")
        values = {decision["value"] for decision in json.loads(every)}
        self.assertEqual(values, self.flagged | {"10.1.2.3", "127.0.0.1", "198.51.100.1"})
        kept = self.export("crowdsec", "--allow-private", "--own", "10.0.0.0/8", "--own", "203.0.113.0/24")
        self.assertEqual({decision["value"] for decision in json.loads(kept)}, {"2001:db8::9", "127.0.0.1", "198.51.100.1"})
        self.export("haproxy", "--by", "ja4", query=BOTH, code=REFUSED, says=("a program and not a client", "--ja4-alone"))
        self.export("nftables", "--by", "ja4", "--ja4-alone", query=BOTH, code=REFUSED, says=("nftables sees packets",))
        self.export("nginx", "--max-entries", 3, code=REFUSED, says=("11 clients, more than 3",))
        self.export("nginx", query="SELECT '0.0.0.0/0' AS src_ip", code=NOT_FOUND, says=("too wide", "nobody"))
        self.export("nginx", query="SELECT reason AS src_ip FROM found", code=NOT_FOUND, says=("no address",))
        self.export("nginx", query="SELECT reason FROM found", code=REFUSED, says=("no column `src_ip`",))
        self.export("nginx", query="SELECT src_ip FROM found WHERE false", code=NOT_FOUND)
        self.export("nginx", query="SELECT nothing FROM found", code=FAILED, says=("nothing",))
        self.export("nginx", query="DROP TABLE found", code=FAILED, says=("refused",))
        for wrong in (("--ttl", "0s"), ("--ttl", "soon"), ("--own", "x"), ("--ja4-header", "X:"), ("--since", "x", "--dry-run")):
            self.export("anubis", *wrong, code=REFUSED)

    def test_a_file_is_replaced_and_says_when_it_expires(self) -> None:
        """Nothing is left beside it."""
        path = self.write("rules", "old")
        self.assertEqual(self.export("nginx", "--out", path, "--ttl", "1h", says=("11 entries",)), "")
        text = path.read_text()
        expires = datetime.fromisoformat(re.search(r"expire (\S+)", text)[1])
        self.assertLess(abs(expires - datetime.now(UTC) - timedelta(hours=1)), timedelta(minutes=5))
        self.assertEqual([name for name in os.listdir(self.directory) if name.startswith("rules")], ["rules"])
        self.export("nginx", "--out", self.directory / "none/rules", code=FAILED, says=("cannot be written",))

    def test_a_dry_run_says_whom_it_would_have_hit(self) -> None:
        """Another host of a flagged client is not flagged: it is named, by its requests."""
        text = self.export("nftables", "--dry-run")
        requests = sum(3 + nth for nth in range(len(EVIL))) + 4
        self.assertIn(f"would have hit 11 flagged groups ({requests} requests) and 3 others (6 requests)", text)
        self.assertIn("0 of 11 entries would have hit nobody", text)
        self.assertRegex(text, rf"2 requests  203\.0\.113\.0  b  {TWIN}  last 2026-")
        wide = "SELECT '203.0.113.0/24' AS src_ip UNION ALL SELECT '192.0.2.1'"
        text = self.export("nftables", "--dry-run", query=wide)
        self.assertIn("and 4 others (7 requests)", text)
        self.assertIn("1 of 2 entries would have hit nobody", text)
        text = self.export("haproxy", "--dry-run", "--by", "address-and-ja4", query=BOTH)
        self.assertIn("would have hit 11 flagged groups", text)
        self.assertIn("and 0 others", text)
        text = self.export("haproxy", "--dry-run", "--by", "ja4", "--ja4-alone", query=BOTH)
        self.assertRegex(text, r"would have hit 14 flagged groups \(\d+ requests\) and 2 others \(2 requests\)")
        text = self.export("nftables", "--dry-run", "--since", "2026-12-01T00:00:00Z")
        self.assertIn("would have hit 0 flagged groups (0 requests) and 0 others", text)


class Recorded(Case):
    """The demo's recording."""

    def test_the_recordings_threats(self) -> None:
        """Counts as the files of another sink have them."""
        levels = ("HIGH", "CRITICAL")
        found = {row["src_ip"] for row in lines(demo() / "detections.jsonl") if row["threat_level"] in levels}
        query = f"SELECT src_ip, reason FROM detections WHERE threat_level IN {levels}"
        run = self.engine("rules", "export", "--format", "crowdsec", "--query", query, "--data", demo())
        self.assert_exit(run, OK)
        decisions = json.loads(run.stdout)
        self.assertEqual({decision["value"] for decision in decisions}, found)
        self.assertIn("missing paths", " ".join(decision["reason"] for decision in decisions))
        query = "SELECT ip_prefix(src_ip, 24, 64) AS src_ip FROM detections WHERE threat_level = 'HIGH'"
        run = self.engine("rules", "export", "--format", "nftables", "--dry-run", "--query", query, "--data", demo())
        self.assert_exit(run, OK)
        key = ("src_ip", "host", "ja4")
        flagged = {tuple(row.get(name) for name in key) for row in lines(demo() / "detections.jsonl")}
        groups = [row for row in lines(demo() / "features.jsonl") if row["src_ip"].startswith("203.0.113.")]
        hit = [row["hits"] for row in groups if tuple(row.get(name) for name in key) in flagged]
        others = [row["hits"] for row in groups if tuple(row.get(name) for name in key) not in flagged]
        self.assertIn(
            f"would have hit {len(hit)} flagged groups ({sum(hit)} requests) and {len(others)} others ({sum(others)} requests)",
            run.stdout,
        )
