"""Several nodes as one input, inputs of which nothing is understood, and what two runs share."""

import json
import socket
import time
from itertools import pairwise
from pathlib import Path

from tests.support import FAILED, OK, RECORDING, REFUSED, Case, get, lines, running, served, sql, wait_for

START = 1_795_448_127_143_731_000
NOT_UNDERSTOOD = 5
COMBINED = b'192.0.2.1 - - [23/Nov/2026:15:35:27 +0000] "GET /\x1b[31m HTTP/1.1" 200 5 "-" "x"\n'
CAPTURE = RECORDING / "capture.pcap"


def line(path: str, nth: int, step_ns: int = 500_000_000, **more: object) -> str:
    """A request of a log."""
    row = {"timestamp": START + nth * step_ns, "src_ip": f"192.0.2.{nth % 3}", "src_port": 1000 + nth, "path": path}
    return json.dumps(row | more) + "\n"


class Merged(Case):
    """`from: [a, b]`."""

    def setUp(self) -> None:
        super().setUp()
        for name, rows in (("a", 300), ("b", 200), ("c", 250)):
            self.write(f"{name}.log", "".join(line(f"/{name}{nth}", nth) for nth in range(rows)))

    def pipeline(self, inputs: str = "[a, b, c.out]") -> Path:
        """Three logs; what takes them as they are, and what depends on their order."""
        return self.write(
            "merged.yaml",
            "name: merged\ndata_dir: data\nnodes:\n"
            "  - { id: a, kind: source.file, path: a.log, format: reqin_log }\n"
            "  - { id: b, kind: source.file, path: b.log, format: reqin_log }\n"
            "  - { id: c, kind: source.file, path: c.log, format: reqin_log }\n"
            f"  - {{ id: rows, kind: sink.jsonl, from: {inputs}, path: rows.out, columns: [time, seq, path] }}\n"
            f"  - {{ id: f, kind: aggregate, from: {inputs}, by: [src_ip], window: 1m, features: [\n"
            "      { name: hits, expr: count(*) }, { name: gaps, expr: 'sum(1.0 / (1 + gap_ms))' },\n"
            "      { name: first, expr: 'max(path) filter (where nth = 1)' } ] }\n"
            "  - { id: features, kind: sink.jsonl, from: f, path: features.out }\n",
        )

    def rows(self, name: str) -> list:
        """What a file has, sorted."""
        return sorted(json.dumps(row, sort_keys=True) for row in lines(self.directory / name))

    def test_rows_of_several_logs_are_one_input_whatever_the_number_of_workers(self):
        """Each row is there once with a place of its own; what depends on their order is the same with 1, 2 and 5 workers."""
        before = None
        for workers in (1, 2, 5):
            self.assert_exit(self.engine("run", "-q", "--workers", workers, self.pipeline()), OK)
            rows = lines(self.directory / "rows.out")
            wanted = [f"/{name}{nth}" for name, many in (("a", 300), ("b", 200), ("c", 250)) for nth in range(many)]
            self.assert_same_rows((row["path"] for row in rows), wanted)
            for row in rows:
                self.assertEqual(row["seq"], 3 * int(row["path"][2:]) + "abc".index(row["path"][1]))
            found = (self.rows("rows.out"), self.rows("features.out"))
            self.assertEqual(sum(json.loads(row)["hits"] for row in found[1]), 750)
            self.assertIn(before, (None, found))
            before = found

    def test_the_order_of_the_list_breaks_ties(self):
        """Of equal times and places the node that is written first comes first; that is a change for plan-diff."""
        found = {}
        for inputs in ("[a, b, c]", "[b, a, c]"):
            self.assert_exit(self.engine("run", "-q", self.pipeline(inputs)), OK)
            found[inputs] = [row["first"][:2] for row in lines(self.directory / "features.out")]
        self.assertEqual([set(first) for first in found.values()], [{"/a"}, {"/b"}])
        self.write("before.yaml", self.pipeline("[a, b, c]").read_text())
        diff = self.engine("plan-diff", self.directory / "before.yaml", self.pipeline("[b, a, c]"))
        self.assertIn("from: [a, b, c] -> [b, a, c]", diff.stdout)
        graph = self.engine("graph", self.pipeline()).stdout
        self.assertEqual(graph.count("--> n3") + graph.count("--> n4"), 6, graph)

    def test_what_cannot_be_merged_is_refused_at_its_place(self):
        """Other columns, relations, packets, the same rows twice, nothing at all."""
        for inputs, says in {
            "[a, d]": "`d` has no column `src_ip`, which `a` has",
            "[a, a.rejected]": "has no column",
            "[a, a.out]": "`a.out` is in the list already",
            "[f, g]": "`f` is a relation",
            "[p, q]": "rows of `p` cannot be merged",
            "[]": "a list of nodes names at least one",
            "[a, nobody]": "no node has the id `nobody`",
        }.items():
            pipeline = self.write(
                "refused.yaml",
                "name: refused\nnodes:\n"
                "  - { id: a, kind: source.file, path: a.log, format: reqin_log }\n"
                "  - { id: d, kind: source.file, path: b.log, columns: { time: time, path: text } }\n"
                f"  - {{ id: p, kind: source.pcap, file: {CAPTURE} }}\n  - {{ id: q, kind: source.pcap, file: {CAPTURE} }}\n"
                "  - { id: f, kind: aggregate, from: a, by: [src_ip], features: [{ name: n, expr: count(*) }] }\n"
                "  - { id: g, kind: aggregate, from: a, by: [src_ip], features: [{ name: n, expr: count(*) }] }\n"
                f"  - {{ id: out, kind: sink.jsonl, from: {inputs}, path: out.jsonl }}\n",
            )
            self.assert_exit(self.engine("validate", pipeline), REFUSED, says, "refused.yaml:9:")

    def test_a_join_takes_hellos_and_requests_of_several(self):
        """Under names too: requests of the demo in two parts, with its hellos, are joined as in one."""
        log = (RECORDING / "requests.jsonl").read_bytes().splitlines(keepends=True)
        self.write("all.log", b"".join(log))
        self.write("even.log", b"".join(log[::2]))
        self.write("odd.log", b"".join(log[1::2]))
        joined = {}
        for name, request in (("one", "all"), ("two", "[even, odd]")):
            pipeline = self.write(
                "join.yaml",
                f"name: join\nnodes:\n  - {{ id: p, kind: source.pcap, file: {CAPTURE} }}\n"
                "  - { id: h, kind: tls.client_hello, from: p }\n"
                "  - { id: all, kind: source.file, path: all.log, format: reqin_log }\n"
                "  - { id: even, kind: source.file, path: even.log, format: reqin_log }\n"
                "  - { id: odd, kind: source.file, path: odd.log, format: reqin_log }\n"
                f"  - {{ id: j, kind: correlate, from: {{ hello: [h], request: {request} }} }}\n"
                "  - { id: out, kind: sink.jsonl, from: j, path: out.jsonl, columns: [time, src_ip, src_port, path, ja4, correlated] }\n",
            )
            self.assert_exit(self.engine("run", "-q", pipeline), OK)
            joined[name] = [json.dumps(row) for row in lines(self.directory / "out.jsonl")]
        self.assert_same_rows(joined["two"], joined["one"])
        self.assertGreater(len(joined["one"]), 1000)

    def test_live_sources_are_merged_and_a_third_is_added_while_the_run_goes_on(self):
        """Rows wait in the spool of each; a change of the list makes again what reads it."""
        node = "  - {{ id: {0}, kind: source.unix_socket, path: {0}.sock, columns: {{ time: time, path: text }} }}\n"

        def pipeline(inputs: str) -> Path:
            return self.write(
                "live.yaml",
                "name: live\ndata_dir: live\nnodes:\n" + "".join(node.format(name) for name in "abc")
                + f"  - {{ id: f, kind: aggregate, from: {inputs}, by: [path], window: 1h, features: [{{ name: n, expr: count(*) }}] }}\n"
                + "serve: { listen: 127.0.0.1:0, tables: { f: f } }\n",
            )

        log = self.directory / "log"
        with running("run", pipeline("[a, b]"), log=log):
            base = served(log)
            for name in "abc":
                path = self.directory / f"{name}.sock"
                wait_for("the socket", path.exists)
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.connect(str(path))
                    for _ in range(5):
                        sender.send(json.dumps({"time": time.time_ns(), "path": "/x"}).encode())
            hits = lambda: sum(row["n"] for row in sql(base, "select n from f"))  # noqa: E731
            wait_for("rows of two sources", lambda: hits() == 10)
            pipeline("[a, b, c]")
            wait_for("rows of three sources", lambda: hits() == 15)


class Understood(Case):
    """Runs of which nothing comes, because the input is not what it was taken for."""

    def run_on(self, log: bytes, *options: str):
        """The run over a log."""
        self.write("in.log", log)
        pipeline = self.write(
            "p.yaml",
            "name: p\nnodes:\n  - { id: requests, kind: source.file, path: in.log, format: reqin_log }\n"
            "  - { id: out, kind: sink.jsonl, from: requests, path: out.jsonl }\n",
        )
        return self.engine("run", *options, pipeline)

    def test_a_log_of_which_nothing_is_understood_has_an_exit_code_of_its_own(self):
        """The first line is shown, escaped, with the likely cause; one line that is understood is enough to end well."""
        run = self.run_on(COMBINED * 20)
        self.assert_exit(run, NOT_UNDERSTOOD, "none of 20 lines was understood", "combined log format", "of: requests")
        self.assertNotIn("\x1b[31m", run.stderr)
        self.assert_exit(self.run_on(COMBINED, "-q"), NOT_UNDERSTOOD, "none of 1 lines was understood")
        self.assert_exit(self.run_on(COMBINED * 9 + line("/", 1).encode()), OK)
        self.assert_exit(self.run_on(b""), OK)
        self.assertIn("  5 ", self.engine("run", "--help").stdout)

    def test_a_live_source_says_it_while_it_runs(self):
        """As a warning, a trouble of the node and in /metrics, until lines are understood."""
        pipeline = self.write(
            "p.yaml",
            "name: p\nspool: off\nnodes:\n  - { id: requests, kind: source.unix_socket, path: s.sock, format: reqin_log }\n"
            "serve: { listen: 127.0.0.1:0, tables: { requests: requests } }\n",
        )
        log = self.directory / "log"
        with running("run", pipeline, log=log), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            base = served(log)
            sender.connect(str(self.directory / "s.sock"))
            for _ in range(20):
                sender.send(COMBINED)
            trouble = 'ja4_engine_node_trouble{node="requests",kind="source.unix_socket",part="input"} 1'
            wait_for("the trouble in /metrics", lambda: trouble in get(f"{base}/metrics")[1])
            self.assertIn("combined log format", get(f"{base}/status")[1])
            self.assertIn("WARN", log.read_text())
            for nth in range(6):
                sender.send(line("/", nth, timestamp=time.time_ns()).encode())
            wait_for("the end of it", lambda: trouble not in get(f"{base}/metrics")[1])

    def test_requests_without_hellos_are_explained(self):
        """No hello at all; hellos of other connections; times in whole seconds."""
        second = 10**9
        exact = "".join(line("/", nth, 500_000_001) for nth in range(200))
        rounded = "".join(line("/", nth, second, timestamp=START // second * second + nth * second) for nth in range(200))
        empty = self.write("empty.pcap", CAPTURE.read_bytes()[:24])
        for capture, log, cause in (
            (empty, exact, "no hello has come at all"),
            (CAPTURE, exact, "of other connections"),
            (CAPTURE, rounded, "whole seconds"),
        ):
            self.write("in.log", log)
            pipeline = self.write(
                "p.yaml",
                f"name: p\nnodes:\n  - {{ id: p, kind: source.pcap, file: {capture} }}\n  - {{ id: h, kind: tls.client_hello, from: p }}\n"
                "  - { id: r, kind: source.file, path: in.log, format: reqin_log }\n"
                "  - { id: j, kind: correlate, from: { hello: h, request: r } }\n"
                "  - { id: out, kind: sink.jsonl, from: j, path: out.jsonl }\n",
            )
            self.assert_exit(self.engine("run", pipeline), OK, "200 of 200 requests have found no hello", cause)


class Shared(Case):
    """What a second run must not touch, and log lines for programs."""

    def pipeline(self, more: str = "", data: str = "data") -> Path:
        """A file into a stored and served table."""
        self.write("in.log", "".join(line("/", nth) for nth in range(20)))
        return self.write(
            "p.yaml",
            f"name: p\ndata_dir: {data}\nnodes:\n  - {{ id: requests, kind: source.file, path: in.log, format: reqin_log }}\n"
            f"  - {{ id: store, kind: sink.parquet, from: {{ requests: requests }} }}\n{more}"
            "serve: { listen: 127.0.0.1:0, tables: { requests: requests } }\n",
        )

    def test_a_data_dir_is_of_one_run(self):
        """Also without a spool: while its tables are served nobody else writes them, not even a replay."""
        log = self.directory / "log"
        with running("run", "--serve", self.pipeline(), log=log):
            base = served(log)
            wait_for("all rows", lambda: sql(base, "select count(*) n from requests")[0]["n"] == 20)
            wait_for("the end of the sources", lambda: "all sources have ended" in log.read_text())
            self.assert_exit(self.engine("run", "-q", self.pipeline()), FAILED, "in use by another process")
            self.assert_exit(
                self.engine("replay", self.pipeline(data="third"), "--data-dir", self.directory / "data"), REFUSED, "in use by another process"
            )
            self.assertEqual(sql(base, "select count(*) n from requests")[0]["n"], 20)
            self.assert_exit(self.engine("run", "-q", self.pipeline(data="other")), OK)
        self.assert_exit(self.engine("run", "-q", self.pipeline()), OK)

    def test_log_lines_in_json_are_json_alone(self):
        """Of runs that end well, are refused, fail, are changed and stopped; each object has one message."""
        pipeline = self.pipeline()
        broken = self.write("broken.yaml", "name: b\nnodes:\n  - { id: a, kind: filtre }\n  - { id: b, kind: nothing }\n")
        for arguments in ([pipeline], [broken], [pipeline, "--nonsense"], [self.directory / "none.yaml"]):
            run = self.engine("run", "--log-format", "json", *arguments)
            self.assertTrue(self.messages(run.stderr), arguments)
        live = "name: l\nnodes:\n  - {{ id: r, kind: source.unix_socket, path: s.sock, columns: {{ time: {} }} }}\n" \
            "  - {{ id: o, kind: sink.jsonl, from: r, path: out.jsonl }}\n"
        pipeline = self.write("live.yaml", live.format("time"))
        log = self.directory / "log"
        with running("run", "--log-format", "json", pipeline, log=log):
            wait_for("the socket", (self.directory / "s.sock").exists)
            self.write("live.yaml", live.format("txt"))
            wait_for("the change", lambda: "refused" in log.read_text())
        messages = self.messages(log.read_text())
        refused = [level for level, message in messages if "reload: refused" in message]
        self.assertEqual(refused, ["WARN"])
        self.assertTrue(any("stopping" in message for _, message in messages))

    def messages(self, text: str) -> list:
        """Level and message of each line; a line that is no object, or has a key twice, is a fault."""
        def once(pairs: list) -> dict:
            keys = sorted(key for key, _ in pairs)
            self.assertFalse([key for key, other in pairwise(keys) if key == other], text)
            return dict(pairs)

        entries = [json.loads(entry, object_pairs_hook=once) for entry in text.splitlines()]
        return [(entry["level"], entry["fields"]["message"]) for entry in entries]


class Messages(Case):
    """What a user reads who has written something that cannot be meant."""

    def test_each_says_what_to_write(self):
        """Names in capitals, text in double quotes, features in the wrong order, types of a join, units, modes."""
        self.write("in.log", line("/", 1))
        source = "  - { id: r, kind: source.file, path: in.log, format: reqin_log }\n"
        declared = "  - { id: d, kind: source.file, path: in.log, columns: { time: time, ClientHost: ip, src_ip: ip, src_port: integer } }\n"
        for nodes, says in (
            (declared + "  - { id: f, kind: filter, from: d, where: ClientHost is null }\n", 'write "ClientHost"'),
            (source + "  - { id: f, kind: filter, from: r, where: 'path = \"login\"' }\n", "single quotes, 'login'"),
            (
                source + "  - { id: f, kind: aggregate, from: r, by: [src_ip], features: [{ name: a, expr: b / 2 }, { name: b, expr: count(*) }] }\n",
                "the feature `b` stands further down",
            ),
            (
                source + declared + "  - { id: f, kind: correlate, from: { hello: d, request: r } }\n",
                "arrow_cast(src_port, 'UInt16')",
            ),
            (source + "  - { id: f, kind: aggregate, from: r, by: [src_ip], window: 1M, features: [{ name: a, expr: count(*) }] }\n", "minutes or months"),
        ):
            run = self.engine("validate", self.write("p.yaml", f"name: p\nnodes:\n{nodes}"))
            self.assert_exit(run, REFUSED, says)
        good = f"name: p\nnodes:\n{source}"
        for text, says in (
            (good + "serve: { tables: { t: [r, r.rejected] } }\n", "the table `t` shows the rows of one node"),
            (good + "---\n" + good, "multiple YAML documents"),
            (good + "name: q\n", "duplicate mapping key: name"),
        ):
            run = self.engine("validate", self.write("p.yaml", text))
            self.assert_exit(run, REFUSED, says)
            self.assertNotRegex(run.stderr, "from_str|DuplicateKeyPolicy")

    def test_a_socket_that_everybody_may_write_to_is_a_warning(self):
        """Through an alias as well, whose text is what stands at the anchor."""
        sockets = "name: p\nspool: off\nnodes:\n  - {{ id: a, kind: source.unix_socket, path: a.sock, format: reqin_log, mode: &m {0} }}\n" \
            "  - {{ id: b, kind: source.unix_socket, path: b.sock, format: reqin_log, mode: *m }}\n" \
            "  - {{ id: o, kind: sink.jsonl, from: [a, b], path: out.jsonl }}\n"
        run = self.engine("validate", self.write("p.yaml", sockets.format("0o666")))
        self.assert_exit(run, OK, "warning: ", "p.yaml:4:", "every user of this machine can write")
        self.assertEqual(run.stderr.count("every user"), 2)
        pipeline = self.write("p.yaml", sockets.format("0o640"))
        self.assertNotIn("warning", self.engine("validate", pipeline).stderr)
        with running("run", pipeline, log=self.directory / "log"):
            paths = [self.directory / name for name in ("a.sock", "b.sock")]
            for path in paths:
                wait_for("the socket's mode", lambda path=path: path.exists() and path.stat().st_mode & 0o777 == 0o640)

    def test_list_knows_topics_and_names_what_there_is(self):
        """Rules, features, levels, sections, formats; each kind's columns."""
        for topic, says in {
            "rules": "when (text; must be set)", "features": "expr (text; must be set)", "levels": "CRITICAL", "serve": "hot_rows",
            "spool": "commit", "tick": "Watermarks move", "formats": "header_User-Agent", "reqin_log": "src_port",
            "correlate": "columns in: src_ip (Utf8) and src_port (UInt16)", "aggregate": "columns out: window_start",
        }.items():
            run = self.engine("list", topic)
            self.assert_exit(run, OK)
            self.assertIn(says, run.stdout)
        self.assertIn("rules", self.engine("list").stdout)
        self.assert_exit(self.engine("list", "zzz"), REFUSED, "correlate", "formats")
        self.assert_exit(self.engine("list", "corelate"), REFUSED, "did you mean `correlate`?")

    def test_a_damaged_note_says_what_to_do(self):
        """Nothing is begun afresh in silence."""
        (self.directory / "data/spool").mkdir(parents=True)
        (self.directory / "data/spool/progress.json").write_text('{"upto":17')
        pipeline = self.write(
            "p.yaml",
            "name: p\nnodes:\n  - { id: r, kind: source.unix_socket, path: s.sock, format: reqin_log }\n"
            "  - { id: o, kind: sink.jsonl, from: r, path: out.jsonl }\n",
        )
        self.assert_exit(self.engine("run", pipeline), FAILED, "progress.json is damaged", "remove it")
