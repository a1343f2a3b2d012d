"""`explain`: what is stored of a client beside recomputed statistics, and evidence folders that verify, or do not."""

import hashlib
import json
import math
import re
import shutil
import statistics
import struct
from pathlib import Path

from tests.support import (
    FAILED, NOT_FOUND, OK, PIPELINES, RECORDING, REFUSED, Case, demo, get, lines, packets, running, served, wait_for,
)

SCANNER = "203.0.113.66"
SCRAPER = "203.0.113.81"
CAPTURE = RECORDING / "capture.pcap"

# What a client can send in a path or header: escape sequences, a new line that looks like ours, right-to-left override.
EVIL = "/\x1b]0;owned\x07\r\nVERDICT none\u202e\u200b'; DROP TABLE requests --"


def quantile(values: list[float], share: float) -> float:
    """As numpy's percentile."""
    values = sorted(values)
    at = share * (len(values) - 1)
    low = math.floor(at)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (at - low)


def robust_z(values: list[float], value: float) -> float | None:
    """(x - median) / (1.4826 MAD), or by the mean distance if the MAD is 0."""
    median = statistics.median(values)
    distances = [abs(other - median) for other in values]
    mad, mean = statistics.median(distances), statistics.fmean(distances)
    deviation = 1.4826 * mad if mad else 1.2533 * mean
    if value == median:
        return 0.0
    return (value - median) / deviation if deviation else None


def number(value: object) -> float | None:
    """A feature as it is compared."""
    return float(value) if isinstance(value, bool | int | float) else None


class Explain(Case):
    """Clients of the demo."""

    def explain(self, *arguments: object, code: int = OK) -> dict:
        """The report as data."""
        run = self.engine("explain", "--format", "json", *arguments)
        self.assert_exit(run, code)
        return json.loads(run.stdout)

    def test_features_stand_beside_those_of_all_groups(self) -> None:
        """Every figure as Python has it, of the rows that another sink has written."""
        report = self.explain(SCANNER, "--data", demo())
        groups = lines(demo() / "features.jsonl")
        own = [row for row in groups if row["src_ip"] == SCANNER]
        self.assertEqual((len(report["groups"]), len(own)), (1, 1))
        group, compared = report["groups"][0], 0
        self.assertEqual((group["host"], group["ja4"]), (own[0]["host"], own[0]["ja4"]))
        for feature in group["features"]:
            name, value = feature["name"], number(own[0].get(feature["name"]))
            self.assertEqual(feature["value"], value, name)
            values = [number(row[name]) for row in groups if row.get(name) is not None]
            if not values:
                self.assertIsNone(feature["usual"], name)
                continue
            usual = feature["usual"]
            self.assertEqual(usual["groups"], len(values), name)
            for key, share in (("p05", 0.05), ("p25", 0.25), ("median", 0.5), ("p75", 0.75), ("p95", 0.95)):
                self.assertAlmostEqual(usual[key], quantile(values, share), delta=1e-9 * (1 + abs(usual[key])), msg=name)
            if value is None:
                continue
            below = (sum(v < value for v in values) + sum(v <= value for v in values)) / 2 / len(values)
            self.assertAlmostEqual(feature["rank"], below, msg=name)
            z = robust_z(values, value)
            if z is None:
                self.assertIsNone(feature["z"], name)
            else:
                self.assertAlmostEqual(feature["z"], z, delta=1e-9 * (1 + abs(z)), msg=name)
            compared += 1
        self.assertGreater(compared, 40)
        order = [math.inf if f["z"] is None else abs(f["z"]) for f in group["features"] if f["value"] is not None]
        self.assertEqual(order, sorted(order, reverse=True), "the most unusual first")
        self.assertNotIn("final", [feature["name"] for feature in group["features"]])

    def test_a_report_has_everything_that_is_stored(self) -> None:
        """The detection, all requests, labels and hellos."""
        report = self.explain(SCANNER, "--data", demo(), "--requests", 5)
        found = next(row for row in lines(demo() / "detections.jsonl") if row["src_ip"] == SCANNER)
        (judgement,) = report["groups"][0]["judgements"]
        self.assertEqual(judgement["verdict"], {"threat_level": found["threat_level"]})
        self.assertEqual(judgement["rules"], {"rules": found["rules"], "reason": found["reason"]})
        requests = [row for row in lines(demo() / "correlated.jsonl") if row["src_ip"] == SCANNER and "method" in row]
        self.assertEqual((report["requests"]["total"], len(report["requests"]["rows"])), (len(requests), 5))
        latest = max(requests, key=lambda row: row["time"])
        self.assertEqual(report["requests"]["rows"][0]["path"], latest["path"])
        self.assertEqual(dict(report["labels"]["src_asn"]), {str(latest["src_asn"]): len(requests)})
        hellos = {row["conn_id"] for row in requests if row.get("ja4")}
        self.assertEqual(report["hellos"]["total"], len(hellos))
        self.assertEqual(sum(hello["count"] for hello in report["distinct_hellos"]), len(hellos))
        self.assertEqual(report["windows"], ["2026-11-23T15:00:00Z"])
        run = self.engine("explain", SCANNER, "--data", demo())
        self.assert_exit(run, OK)
        for text in (f"GROUP {SCANNER} at {found['host']}", found["reason"], "HIGH", "LABELS", f"REQUESTS 20 of {len(requests)}", "HELLOS"):
            self.assertIn(text, run.stdout)

    def test_windows_and_parts_of_a_client(self) -> None:
        """One host, no host, a time, a span."""
        both = {group["host"] for group in self.explain(SCRAPER, "--data", demo())["groups"]}
        self.assertEqual(both, {"www.example.test", "shop.example.test"})
        one = self.explain(f"{SCRAPER},shop.example.test,", "--data", demo())
        self.assertEqual({group["host"] for group in one["groups"]}, {"shop.example.test"})
        self.assertEqual({row["host"] for row in one["requests"]["rows"]}, {"shop.example.test"})
        self.assert_exit(self.engine("explain", f"{SCRAPER},-,-", "--data", demo()), NOT_FOUND)
        for arguments in (("--at", "2026-11-23T15:40:00Z"), ("--window", "2026-11-23T15:00:00Z/2026-11-23T16:00:00Z")):
            report = self.explain(SCRAPER, "--data", demo(), *arguments)
            self.assertEqual((len(report["groups"]), report["windows"]), (2, ["2026-11-23T15:00:00Z"]))
        part = self.explain(SCRAPER, "--data", demo(), "--baseline", "chromium_ratio > 0.5")
        hits = next(feature for feature in part["groups"][0]["features"] if feature["name"] == "hits")
        browsers = [row for row in lines(demo() / "features.jsonl") if (row.get("chromium_ratio") or 0) > 0.5]
        self.assertEqual(hits["usual"]["groups"], len(browsers))

    def test_a_running_engine_says_the_same(self) -> None:
        """Over HTTP; its hellos are a table of their own there."""
        log = self.directory / "log"
        arguments = ("run", "--serve", "--listen", "127.0.0.1:0", PIPELINES / "demo.yaml")
        with running(*arguments, environment={"DATA_DIR": self.directory / "data"}, log=log):
            base = served(log)
            wait_for("the end of the recording", lambda: "finished" in get(f"{base}/ready")[1])
            report = self.explain(SCANNER, "--url", base)
        stored = self.explain(SCANNER, "--data", demo())
        self.assertEqual(report["pipeline"], "demo")
        for part in ("groups", "requests", "labels", "windows", "client"):
            self.assertEqual(report[part], stored[part], part)
        own = [row for row in lines(demo() / "hellos.jsonl") if row["src_ip"] == SCANNER]
        self.assertEqual(report["hellos"]["total"], len(own))

    def test_what_is_not_there_has_its_own_exit_code(self) -> None:
        """And a wrong command line another one."""
        data = ("--data", demo())
        self.assert_exit(self.engine("explain", "192.0.2.250", *data), NOT_FOUND, "nothing is stored", "detections")
        self.assert_exit(self.engine("explain", SCANNER, *data, "--at", "2020-01-01T00:00:00Z"), NOT_FOUND)
        for wrong, says in (
            (("example.org", *data), "no client"),
            ((SCANNER, *data, "--at", "noon"), "no time"),
            ((SCANNER, *data, "--window", "2026-11-23T15:00:00Z"), "no span"),
            ((SCANNER, *data, "--table", "requests=none"), "there is no table"),
            ((SCANNER, *data, "--table", "none=requests"), "names no table"),
            (data, "required"),
        ):
            self.assert_exit(self.engine("explain", *wrong), REFUSED, says)
        self.assert_exit(self.engine("explain", SCANNER, *data, "--baseline", "no_such > 1"), FAILED, "no_such")
        self.assert_exit(self.engine("explain", SCANNER, "--data", self.directory / "none"), FAILED, "cannot be read")
        self.assert_exit(self.engine("explain", SCANNER, "--data", self.directory), FAILED, "no tables")
        self.assert_exit(self.engine("explain", SCANNER, "--url", "http://127.0.0.1:1"), FAILED, "does not answer")
        self.assert_exit(self.engine("explain", SCANNER, "--url", "https://127.0.0.1:1"), FAILED, "plain HTTP")

    def test_nothing_that_clients_send_acts_on_the_terminal(self) -> None:
        """Of text and of JSON, which stays what it was."""
        line = {"timestamp": 1795446000 * 10**9, "src_ip": "203.0.113.9", "src_port": 1, "method": "GET", "host": EVIL, "path": EVIL,
                "header_user_agent": EVIL, "status_code": 200}
        self.write("log", json.dumps(line) + "\n")
        self.write("evil.yaml", """name: evil
data_dir: data
nodes:
  - { id: log, kind: source.file, path: log, format: reqin_log }
  - id: groups
    kind: aggregate
    from: log
    by: [host, src_ip]
    window: 1h
    features: [{ name: hits, expr: count(*) }, { name: worst, expr: max(path) }]
  - { id: found, kind: detect.rules, from: groups.final, rules: [{ name: one, when: hits = 1, level: HIGH, reason: "went to {worst}" }] }
  - { id: store, kind: sink.parquet, from: { log: log, groups: groups.final, found: found } }
""")
        self.assert_exit(self.engine("run", "-q", self.directory / "evil.yaml"), OK)
        run = self.engine("explain", "203.0.113.9", "--data", self.directory / "data")
        self.assert_exit(run, OK)
        acts = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]")
        self.assertNotRegex(run.stdout + run.stderr, acts)
        self.assertNotRegex(run.stdout, r"(?m)^VERDICT none")
        self.assertIn("went to", run.stdout)
        run = self.engine("explain", f"203.0.113.9,{EVIL},", "--data", self.directory / "data", "--format", "json")
        self.assert_exit(run, OK)
        self.assertNotRegex(run.stdout, acts)
        self.assertEqual(json.loads(run.stdout)["requests"]["rows"][0]["path"], EVIL)


class Bundle(Case):
    """An evidence folder about the scraper."""

    def bundle(self, *arguments: object) -> Path:
        """A new folder."""
        folder = self.directory / "case"
        run = self.engine("explain", SCRAPER, "--data", demo(), "--bundle", folder, *arguments)
        self.assert_exit(run, OK, "manifest.json SHA-256")
        self.assertIn(hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(), run.stderr)
        return folder

    def verify(self, folder: Path, code: int, *says: str) -> None:
        """What `--verify` says."""
        run = self.engine("explain", "--verify", folder)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        self.assertNotIn("defect", run.stderr)
        for text in says:
            self.assertIn(text, run.stdout + run.stderr)

    def seal(self, folder: Path, **changes: object) -> None:
        """Makes a manifest fit to the files, as somebody who forges a folder would."""
        manifest = json.loads((folder / "manifest.json").read_text())
        for path in folder.iterdir():
            if path.name in manifest["files"]:
                content = path.read_bytes()
                manifest["files"][path.name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))

    def test_a_folder_verifies_until_it_is_changed(self) -> None:
        """Each file, one more, one less, a link."""
        folder = self.bundle()
        names = {"report.txt", "report.json", "requests.jsonl", "hellos.jsonl", "features.json", "rules.json"}
        manifest = json.loads((folder / "manifest.json").read_text())
        self.assertEqual(set(manifest["files"]), names)
        self.assertTrue(any("count(*)" in query for query in manifest["queries"]))
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        requests = [row for row in lines(demo() / "correlated.jsonl") if row["src_ip"] == SCRAPER and "method" in row]
        self.assertEqual(len(lines(folder / "requests.jsonl")), len(requests))
        self.verify(folder, OK, "rules.json: as the manifest says", "\nverified")
        for name in sorted(names):
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[:-1] + b" ")
            self.verify(folder, FAILED, f"FAULT {name} has been changed", "NOT verified")
            (folder / name).write_bytes(content)
        (folder / "more").write_text("")
        self.verify(folder, FAILED, "FAULT more is not in the manifest")
        (folder / "more").unlink()
        (folder / "rules.json").rename(self.directory / "rules.json")
        self.verify(folder, FAILED, "rules.json cannot be read")
        (folder / "rules.json").symlink_to(self.directory / "rules.json")
        self.verify(folder, FAILED, "rules.json is no file")
        again = self.engine("explain", SCRAPER, "--data", demo(), "--bundle", folder)
        self.assert_exit(again, FAILED, "is not empty")

    def test_names_of_a_manifest_lead_nowhere(self) -> None:
        """A folder comes from anybody."""
        folder = self.bundle()
        secret = self.write("secret", "x")
        digest = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
        for name in ("../secret", str(secret), "a\u001b[0m"):
            self.seal(folder, files={name: digest})
            self.verify(folder, FAILED, "is no name of a file in the folder")
        self.seal(folder, format=2)
        self.verify(folder, FAILED, "format 2")
        for broken in ("{", "[]", "x" * 100):
            (folder / "manifest.json").write_text(broken)
            self.verify(folder, FAILED, "manifest.json")
        shutil.rmtree(folder)
        self.verify(folder, FAILED, "cannot be read")

    def test_packets_give_the_fingerprints_again(self) -> None:
        """Only those of the client's connections; a row that says another JA4 is found, whatever the hashes say."""
        folder = self.bundle("--pcap", CAPTURE)
        hellos = lines(folder / "hellos.jsonl")
        self.assertGreater(len(hellos), 0)
        self.verify(folder, OK, f"of {len(hellos)} hellos {len(hellos)} have the JA4 of their row")
        copied = (folder / "hellos.pcap").read_bytes()
        self.assertEqual(struct.unpack_from("<I", copied)[0], 0xA1B23C4D, "times in ns")
        whole = {data for _, data in packets(CAPTURE.read_bytes())}
        own = [data for _, data in packets(copied)]
        address = bytes(map(int, SCRAPER.split(".")))
        self.assertGreater(len(own), 2 * len(hellos))
        self.assertTrue(all(data in whole and address in data[:40] for data in own))
        run = self.engine("fingerprint", folder / "hellos.pcap")
        found = [json.loads(line) for line in run.stdout.splitlines()]
        both = [sorted((row["ja4"], row["src_port"]) for row in rows) for rows in (found, hellos)]
        self.assertEqual(*both)
        forged = [{**row, "ja4": "t13d1516h2_8daaf6152771_b186095e22b6"} for row in hellos]
        (folder / "hellos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in forged))
        self.verify(folder, FAILED, "FAULT hellos.jsonl has been changed")
        self.seal(folder)
        self.verify(folder, FAILED, f"the row says t13d1516h2_8daaf6152771_b186095e22b6, the capture {hellos[0]['ja4']}")
        (folder / "hellos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hellos[1:]))
        self.seal(folder)
        self.verify(folder, OK, "has a hello of no row")
        (folder / "hellos.pcap").write_bytes(copied[:30])
        self.seal(folder)
        self.verify(folder, FAILED, "hellos.pcap")

    def test_without_packets_there_is_no_capture(self) -> None:
        """Of another machine's capture nothing is copied, and that is said."""
        other = self.write("other.pcap", CAPTURE.read_bytes()[:24])
        folder = self.directory / "case"
        run = self.engine("explain", SCRAPER, "--data", demo(), "--bundle", folder, "--pcap", other)
        self.assert_exit(run, OK, "no packet of these hellos")
        self.assertFalse((folder / "hellos.pcap").exists())
        self.verify(folder, OK)
        run = self.engine("explain", SCRAPER, "--data", demo(), "--bundle", self.directory / "b", "--pcap", self.directory / "none")
        self.assert_exit(run, FAILED, "none")
        self.assert_exit(self.engine("explain", SCRAPER, "--data", demo(), "--pcap", CAPTURE), REFUSED, "--bundle")
