"""Request logs of stock servers: what a client sends, what is not there, times, numbers, keys."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime

from tests.support import OK, PIPELINES, RECORDING, Case, lines

# Of the lines of these tests, in ns.
START = 1_795_448_127_143_731_000
SEED = 15


def apache(data: bytes) -> bytes:
    """Bytes of a client as Apache's mod_log_config writes them (ap_escape_logitem)."""
    short = {0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0B: b"\\v", 0x0D: b"\\r", 0x22: b'\\"', 0x5C: b"\\\\"}
    return b"".join(short.get(c) or (bytes([c]) if 32 <= c < 127 else b"\\x%02x" % c) for c in data)


def nginx_default(data: bytes) -> bytes:
    """As nginx does by default."""
    return b"".join(b"\\x%02X" % c if c < 32 or c > 126 or c in b'"\\' else bytes([c]) for c in data)


def nginx_json(data: bytes) -> bytes:
    """As nginx does with escape=json: bytes from 128 on stay as they are."""
    short = {0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t", 0x08: b"\\b", 0x0C: b"\\f", 0x22: b'\\"', 0x5C: b"\\\\"}
    return b"".join(short.get(c) or (b"\\u%04X" % c if c < 32 else bytes([c])) for c in data)


def raw(data: bytes) -> bytes:
    """As a program does that escapes only what would end the string or the line."""
    return data.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")


class Lines(Case):
    """Lines through a source into JSON lines."""

    def run_on(self, log: bytes, source: str) -> tuple[list[dict], list[dict], str]:
        """Rows, rejected lines, and the summary of a run over a log with these options of its source."""
        self.write("access.log", log)
        pipeline = self.write(
            "lines.yaml",
            f"name: lines\nnodes:\n  - {{ id: log, kind: source.file, path: access.log, {source} }}\n"
            "  - { id: out, kind: sink.jsonl, from: log, path: rows.out }\n"
            "  - { id: rejects, kind: sink.jsonl, from: log.rejected, path: rejects.out }\n",
        )
        run = self.engine("run", pipeline)
        self.assert_exit(run, OK)
        return lines(self.directory / "rows.out"), lines(self.directory / "rejects.out"), run.stderr

    def test_no_byte_of_a_client_keeps_its_request_out(self) -> None:
        """Each value is what the client sent, decoded as Python decodes it; the others are as they were."""
        rng = random.Random(SEED)
        pieces = [b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xe9", b"\xff", b"\xe2\x82", b"\xed\xa0\xbd", b"\\x22", b"\\u12", b'"', b"\\", b"\0", b"a b", b"\x7f", b"{}"]
        styles: list[Callable[[bytes], bytes]] = [apache, nginx_default, nginx_json, raw]
        log, expected = b"", []
        for n in range(2000):
            def any_bytes() -> bytes:
                return b"".join(rng.choice([*pieces, rng.randbytes(1)]) for _ in range(rng.randrange(6)))
            agent, path, cookie = b"agent " + any_bytes(), b"/" + any_bytes(), any_bytes()
            write = rng.choice(styles)
            log += b'{"timestamp":%d,"src_ip":"192.0.2.7","src_port":%d,"path":"%s","header_User-Agent":"%s","cookie":"%s","host":"h%d"}\n' % (
                START + n, 1024 + n, write(path), write(agent), write(cookie), n)
            expected.append((f"h{n}", 1024 + n, path.decode(errors="replace"), agent.decode(errors="replace")))
        rows, rejects, summary = self.run_on(log, "format: reqin_log")
        self.assertEqual(rejects, [])
        got = [(row["host"], row["src_port"], row["path"], row["header_user_agent"]) for row in rows]
        for one, other in zip(sorted(got, key=lambda row: row[1]), expected, strict=True):
            self.assertEqual(one, other)
        repaired = 0
        for row, line in zip(sorted(rows, key=lambda row: row["seq"]), log.split(b"\n"), strict=False):
            try:
                # Python takes halves of surrogate pairs, which no line here has.
                json.loads(line.decode())
                clean = True
            except ValueError:
                clean = False
            repaired += not clean
            self.assertEqual(row["repaired"], not clean, line)
        self.assertGreater(repaired, 1000)
        self.assertRegex(summary, rf"repaired {repaired:,}\b")

    def test_halves_of_surrogate_pairs_and_raw_control_characters_are_taken(self) -> None:
        """What no server writes, but a program that logs as a client wants."""
        values = {rb"half \ud83d pair": "half \ufffd pair", b"tab\there": "tab\there", rb"\ude00\ud83d\ude00": "\ufffd😀", rb"\q": r"\q"}
        log = b"".join(b'{"timestamp":%d,"src_ip":"192.0.2.7","path":"%s"}\n' % (START, value) for value in values)
        rows, rejects, _ = self.run_on(log, "format: reqin_log")
        self.assertEqual(rejects, [])
        self.assertEqual([row["path"] for row in rows], list(values.values()))

    def test_what_is_not_there_is_null(self) -> None:
        """As Apache and nginx write it, in columns of every type but text."""
        columns = "{ t: time, status: integer, took: float, cached: boolean, remote: ip, at: time, path: text }"
        cases = [
            ('"status":"-"', "status", None), ('"status":""', "status", None), ('"status":-', "status", None),
            ('"status":"200"', "status", 200), ('"took":"-"', "took", None), ('"took":"0.004, 0.120"', "took", 0.12),
            ('"took":"0.004 : 0.5"', "took", 0.5), ('"took":"0.004, -"', "took", None), ('"took":,"x":1', "took", None),
            ('"cached":"-"', "cached", None), ('"remote":"-"', "remote", None), ('"remote":"unix:"', "remote", None),
            ('"remote":"unknown"', "remote", None), ('"remote":"192.0.2.9:52000"', "remote", "192.0.2.9"),
            ('"remote":"fe80::1%eth0"', "remote", "fe80::1"), ('"at":"-"', "at", None), ('"path":"-"', "path", "-"),
            ('"path":""', "path", ""),
        ]
        log = "".join(f'{{"t":{START},{text}}}\n' for text, _, _ in cases)
        rows, rejects, _ = self.run_on(log.encode(), f"time: t, columns: {columns}")
        self.assertEqual(rejects, [])
        for row, (text, column, value) in zip(rows, cases, strict=True):
            self.assertEqual(row.get(column), value, text)

    def test_times_are_of_the_unit_that_is_said(self) -> None:
        """One moment in the spellings of several servers; of another unit none is taken."""
        moment = datetime.fromtimestamp(1_795_448_127, UTC)
        dates = [moment.strftime(form) for form in ("%Y-%m-%dT%H:%M:%S,143Z", "%Y-%m-%d %H:%M:%S.143 +0000", "%Y-%m-%dT%H:%M:%S.143+00")]
        plain = [moment.strftime(form) for form in ("[%d/%b/%Y:%H:%M:%S +0000]", "%d/%b/%Y:%H:%M:%S +0000")]
        numbers = {"s": ["1795448127.143", '"1795448127.143"'], "ms": ["1795448127143", "1795448127143.0"],
                   "us": ["1795448127143000"], "ns": ["1795448127143000000"]}
        for unit in numbers:
            written = [*numbers[unit], *(json.dumps(date) for date in dates)]
            foreign = [number for other, texts in numbers.items() if other != unit for number in texts]
            log = "".join(f'{{"timestamp":{text},"src_ip":"192.0.2.7"}}\n' for text in [*written, *map(json.dumps, plain), *foreign])
            rows, rejects, _ = self.run_on(log.encode(), f"format: reqin_log, time_unit: {unit}")
            expected = ["2026-11-23T15:35:27.143Z"] * len(written) + ["2026-11-23T15:35:27Z"] * len(plain)
            self.assertEqual([datetime.fromisoformat(row["time"]) for row in rows], [datetime.fromisoformat(time) for time in expected])
            self.assertEqual(len(rejects), len(foreign))
            for reject in rejects:
                self.assertIn("since 1970", reject["reason"])

    def test_keys_lead_into_objects_and_numbers_keep_their_digits(self) -> None:
        """As Caddy writes requests; an id is what stands in the line."""
        digits = ["12345678901234567890123", "18446744073709551616", "1.10", "0.1000", "-0", "1E3", "1e400", "7"]
        log = "".join(
            json.dumps({"ts": 0, "request": {"headers": {"User-Agent": [f"agent {n}", "other"]}}, "a.b": n}).replace('"ts": 0', f'"ts": 1795448127.143731829, "id": {text}') + "\n"
            for n, text in enumerate(digits))
        log += '{"ts":1795448127.143731829,"id":1,"id":null,"a.b":1,"a.b":2}\n'
        columns = ('{ time: { type: time, key: ts }, agent: { type: text, key: "request.headers.User-Agent[0]" }, '
                   'dotted: { type: integer, key: ["a.b"] }, id: text }')
        rows, rejects, _ = self.run_on(log.encode(), f"columns: {columns}, time_unit: s")
        self.assertEqual(rejects, [])
        self.assertEqual([row.get("id") for row in rows], [*digits, None])
        self.assertEqual([row.get("agent") for row in rows], [*(f"agent {n}" for n in range(len(digits))), None])
        self.assertEqual([row["dotted"] for row in rows], [*range(len(digits)), 2])
        self.assertEqual({row["time"] for row in rows}, {"2026-11-23T15:35:27.143731829Z"})


FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
HINTS = ("Accept-Language", "Sec-CH-UA", "Sec-CH-UA-Mobile", "Sec-CH-UA-Platform", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")


class StockServers(Case):
    """Whole pipelines on the logs of servers that write every header."""

    def test_a_header_that_was_not_sent_is_no_header(self) -> None:
        """However the server writes that: the same features and detections, for a browser and for who claims to be one."""
        log, sources = [], {}
        for agent in (FIREFOX, CHROME):
            for missing in (None, "-", ""):
                source = f"192.0.2.{len(sources) + 1}"
                sources[source] = (agent, missing)
                for n in range(8):
                    headers = {f"header_{name}": missing for name in HINTS if missing is not None}
                    log.append(json.dumps({
                        "timestamp": START + n * 10**9 + len(sources) * 10**6, "src_ip": source, "method": "GET", "scheme": "https",
                        "host": "h", "path": f"/a{n}", "http_version": "HTTP/2.0", "status_code": 200, "header_User-Agent": agent, **headers,
                    }))
        log += [json.dumps({"timestamp": START + n, "src_ip": "192.0.2.9", "host": "h", "path": f"/wp{n}@", "status_code": 404}).replace("@", r"\xff")
                for n in range(30)]
        self.write("in.jsonl", "\n".join(sorted(log, key=lambda line: json.loads(line.replace("\\xff", ""))["timestamp"])))
        pipeline = self.write("stock.yaml", f"""\
name: stock
data_dir: data
nodes:
  - {{ id: packets, kind: source.pcap, file: {RECORDING / "capture.pcap"} }}
  - {{ id: hellos, kind: tls.client_hello, from: packets }}
  - {{ id: requests, kind: source.file, path: in.jsonl, format: reqin_log }}
  - {{ id: joined, kind: correlate, from: {{ hello: hellos, request: requests }} }}
  - {{ id: labelled, kind: enrich.asn, from: joined, file: {PIPELINES / "recording/asn.csv"} }}
  - {{ id: features, kind: aggregate, from: labelled, by: [host, src_ip, ja4], features: {PIPELINES / "features/standard.yaml"} }}
  - {{ id: verdicts, kind: detect.rules, from: features, rules: {PIPELINES / "rules/standard.yaml"} }}
  - {{ id: f, kind: sink.jsonl, from: features, path: features.out }}
  - {{ id: d, kind: sink.jsonl, from: verdicts, path: detections.out }}
  - {{ id: r, kind: sink.jsonl, from: requests.rejected, path: rejected.out }}
  - {{ id: odd, kind: filter, from: joined, where: repaired }}
  - {{ id: o, kind: sink.jsonl, from: odd, path: odd.out }}
""")
        run = self.engine("run", pipeline)
        self.assert_exit(run, OK)
        self.assertEqual(lines(self.directory / "rejected.out"), [])
        self.assertEqual({row["src_ip"] for row in lines(self.directory / "odd.out")}, {"192.0.2.9"})
        self.assertRegex(run.stderr, rf"orphans_without_port {len(log)}\b")
        features = {row["src_ip"]: row for row in lines(self.directory / "features.out")}
        self.assertEqual(set(features), {*sources, "192.0.2.9"})
        found = {row["src_ip"]: row["threat_level"] for row in lines(self.directory / "detections.out")}
        for agent in (FIREFOX, CHROME):
            same = [source for source, (other, _) in sources.items() if other == agent]
            for name in ("sec_fetch_absence_rate", "ch_ua_missing_if_chromium", "ua_ch_mismatch", "accept_language_missing"):
                values = {source: features[source].get(name) for source in same}
                self.assertEqual(len(set(values.values())), 1, f"{name}: {values}")
            self.assertEqual(len({found.get(source) for source in same}), 1, found)
        self.assertNotEqual(found.get("192.0.2.1"), "HIGH")
        self.assertIn("192.0.2.9", found)
