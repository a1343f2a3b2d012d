"""Pipelines, files and rows that are made to hurt: what is too large is refused at its place, or costs its own row alone."""

import json
import os
import socket
import threading

from tests.support import OK, REFUSED, Case, engine, get, lines, running, served, wait_for

TIME = 1795448127143731000
# As many ANDs as once overflowed the stack of a thread.
DEEP = " and ".join(f"n <> {number}" for number in range(2000))
SOURCE = {"id": "rows", "kind": "source.file", "path": "in.jsonl", "time": "t",
          "columns": {"t": "time", "path": "text", "n": "integer"}}
# Patterns and sizes that nothing but the row itself decides.
HOSTILE = {
    "repeat(path, 100000000)": "repeat could make",
    "repeat(path, n * 100000000)": "repeat could make",
    "lpad(path, 1000000000)": "lpad could make",
    "rpad(path, 2000000000, 'x')": "rpad could make",
    "path || repeat('x', 65535)": "string_concat could make",
    "replace(path, 'a', repeat('b', 40000))": "replace could make",
    "1 / (n - 5)": "divide by zero",
    "cast(path as bigint)": "cannot cast",
}


def pipeline(*nodes: dict, source: dict | None = None, **sections: object) -> str:
    """A pipeline over the rows of a file."""
    return json.dumps({"name": "bounds", "nodes": [source or SOURCE, *nodes], **sections}, indent=1)


class Expressions(Case):
    """SQL of a pipeline."""

    def refused(self, text: str, *says: str, files: dict | None = None) -> str:
        """`validate` and `run` refuse it alike, and name the file and line."""
        path = self.write("p.yaml", text)
        for name, content in (files or {}).items():
            self.write(name, content)
        self.write("in.jsonl", "")
        said = [self.engine(command, path) for command in ("validate", "run")]
        for run in said:
            self.assert_exit(run, REFUSED, *says)
            self.assertRegex(run.stderr, r"\.yaml:\d+:\d+")
            self.assertLess(len(run.stderr), 20_000, "the expression is not shown in full")
        return said[0].stderr

    def test_an_expression_of_2000_ands_is_refused_wherever_it_stands(self):
        """Wherever SQL is written, also in further files."""
        features = {"id": "f", "kind": "aggregate", "from": "rows", "by": ["path"], "window": "10s",
                    "features": [{"name": "hits", "expr": "count(*)"}]}
        deep = {
            "filter": {"kind": "filter", "where": DEEP},
            "derive": {"kind": "derive", "columns": [{"name": "x", "expr": DEEP}]},
            "features": {"kind": "aggregate", "by": ["path"], "features": [{"name": "x", "expr": f"count(*) filter (where {DEEP})"}]},
            "features file": {"kind": "aggregate", "by": ["path"], "features": "more.yaml"},
            "outside": {"kind": "aggregate", "by": ["n"], "features": [{"name": "x", "expr": DEEP}]},
            "peers": {"kind": "peers", "by": ["path"], "columns": [{"name": "x", "expr": f"count(*) filter (where {DEEP}) over ()"}]},
            "rules": {"kind": "detect.rules", "rules": [{"name": "x", "level": "LOW", "when": DEEP, "reason": "x"}]},
            "keep": {"kind": "verdict", "scheme": [{"verdict": "LOW", "when": "n > 1"}], "keep": DEEP},
            "scheme": {"kind": "verdict", "scheme": [{"verdict": "LOW", "when": DEEP}]},
            "campaigns": {"kind": "campaigns", "from": "f", "member": "path", "where": DEEP.replace("n <>", "hits <>"), "link": [["hits"]]},
        }
        more = json.dumps([{"name": "x", "expr": f"count(*) filter (where {DEEP})"}])
        for name, node in deep.items():
            with self.subTest(name):
                before = [features] if node.get("from") == "f" else []
                text = pipeline(*before, {"id": "deep", "from": "rows", **node})
                self.refused(text, "words and signs", files={"more.yaml": more})

    def test_what_nests_too_deep_is_refused(self):
        """Each way to nest, 60 and 10,000 deep."""
        for levels in (60, 10_000):
            for opens, inside, closes in (("(", "n", ")"), ("not ", "n > 1", ""), ("case when n = 1 then ", "n", " end"), ("abs(", "n", ")")):
                with self.subTest(opens, levels=levels):
                    node = {"id": "deep", "kind": "derive", "from": "rows", "columns": [{"name": "x", "expr": opens * levels + inside + closes * levels}]}
                    self.refused(pipeline(node), "the expression")

    def test_patterns_are_constants_of_a_bounded_size(self):
        """A pattern that each row brings, and one that takes all memory."""
        for where, says in {
            "regexp_like(path, path)": "not a constant", "path like path": "not a constant", "path ~ path": "not a constant",
            "regexp_like(path, '((a{100}){100}){100}')": "when it is compiled",
            f"regexp_like(path, '{'a' * 20000}')": "20000 bytes",
        }.items():
            with self.subTest(where[:40]):
                self.refused(pipeline({"id": "f", "kind": "filter", "from": "rows", "where": where}), says)

    def test_an_expression_that_makes_too_much_costs_its_own_row(self):
        """The rows beside it go on; each is counted and says why."""
        rows = [{"t": TIME + n, "path": "/a" if n % 2 else "x", "n": 5 if n == 7 else 1} for n in range(20)]
        self.write("in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        nodes = []
        for number, expr in enumerate(HOSTILE):
            nodes += [
                {"id": f"d{number}", "kind": "derive", "from": "rows", "columns": [{"name": "x", "expr": f"length(({expr})::text) + 0 * n"}]},
                {"id": f"o{number}", "kind": "sink.jsonl", "from": f"d{number}", "path": f"out{number}.jsonl"},
                {"id": f"r{number}", "kind": "sink.jsonl", "from": f"d{number}.rejected", "path": f"rejected{number}.jsonl"},
            ]
        run = self.engine("run", self.write("p.yaml", pipeline(*nodes)))
        self.assert_exit(run, OK)
        for number, (expr, says) in enumerate(HOSTILE.items()):
            with self.subTest(expr):
                rejected = lines(self.directory / f"rejected{number}.jsonl")
                self.assertEqual(len(rejected) + len(lines(self.directory / f"out{number}.jsonl")), len(rows))
                self.assertTrue(rejected)
                for row in rejected:
                    self.assertIn(says, row["reason"].lower())
        self.assertEqual(len(lines(self.directory / "rejected6.jsonl")), 1, "one row divides by zero")

    def test_a_feature_without_a_value_does_not_end_the_run(self):
        """A quotient by a gap of 0, which clients choose."""
        rows = [{"t": TIME + n // 2, "path": "/a", "n": 1} for n in range(20)]
        self.write("in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        features = [{"name": "hits", "expr": "count(*)"}, {"name": "rate", "expr": "sum(1000 / cast(gap_ms as bigint))"}]
        nodes = [
            {"id": "f", "kind": "aggregate", "from": "rows", "by": ["path"], "window": "10s", "features": features},
            {"id": "o", "kind": "sink.jsonl", "from": "f.final", "path": "out.jsonl"},
        ]
        self.assert_exit(self.engine("run", self.write("p.yaml", pipeline(*nodes))), OK)
        self.assertEqual([(row["hits"], row.get("rate")) for row in lines(self.directory / "out.jsonl")], [(20, None)])


class Files(Case):
    """What a pipeline names beside its data."""

    KINDS = (
        ("enrich.asn", "file"), ("enrich.bots", "agents"), ("enrich.bots", "crawlers"), ("enrich.reputation", "file"),
        ("enrich.browser", "file"), ("enrich.anubis", "policy"), ("detect.rules", "rules"), ("aggregate", "features"),
        ("verdict", "scheme"), ("peers", "columns"), ("detect.forest", "model"),
    )

    def validated(self, path: str, limit_s: float = 60) -> str:
        """What is said of a pipeline with all of these as `path`; it must not wait."""
        more = {"aggregate": {"by": ["path"]}, "peers": {"by": ["path"]}}
        nodes = [{"id": f"n{at}", "kind": kind, "from": "rows", **more.get(kind, {}), option: path}
                 for at, (kind, option) in enumerate(self.KINDS)]
        source = {**SOURCE, "columns": {**SOURCE["columns"], "src_ip": "ip"}}
        said = []
        thread = threading.Thread(target=lambda: said.append(engine("validate", self.write("p.yaml", pipeline(*nodes, source=source)))))
        thread.daemon = True
        thread.start()
        thread.join(limit_s)
        self.assertTrue(said, "validate waits")
        self.assertEqual(said[0].returncode, REFUSED, said[0].stderr)
        return said[0].stderr

    def test_a_pipe_is_refused_and_not_waited_for(self):
        """Nobody writes to it."""
        self.write("in.jsonl", "")
        os.mkfifo(self.directory / "pipe.csv")
        said = self.validated("pipe.csv")
        self.assertGreaterEqual(said.count("not a regular file"), 9, said)

    def test_a_file_that_is_too_large_is_not_read(self):
        """Sparse: it takes no room."""
        self.write("in.jsonl", "")
        with (self.directory / "large.csv").open("wb") as file:
            file.truncate(1 << 30)
        said = self.validated("large.csv")
        self.assertGreaterEqual(said.count("larger than"), 9, said)

    def test_a_name_of_20_megabytes_is_refused_with_its_line(self):
        """And is not shown."""
        self.write("in.jsonl", "")
        header = "network,asn,country_code,name,org,domain\n"
        self.write("asn.csv", f"{header}192.0.2.0/24,1,DE,{'x' * (20 << 20)},y,z\n{'9' * (20 << 20)},2,DE,x,y,z\n")
        node = {"id": "n", "kind": "enrich.asn", "from": "rows", "file": "asn.csv"}
        source = {**SOURCE, "columns": {**SOURCE["columns"], "src_ip": "ip"}}
        run = self.engine("validate", self.write("p.yaml", pipeline(node, source=source)))
        self.assert_exit(run, REFUSED, "asn.csv:2: a field has 20971520 bytes", "asn.csv:3: a field has 20971520 bytes")
        self.assertLess(len(run.stderr), 5_000)


class Keys(Case):
    """Groups of texts that a client chooses."""

    def test_long_keys_are_cut_and_stay_apart(self):
        """They begin alike; what is cut is counted."""
        paths = ["/" + "a" * 8000 + suffix for suffix in ("", "b", "c")] + ["/short"]
        rows = [{"t": TIME + n, "path": paths[n % 4], "n": 1} for n in range(40)]
        self.write("in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        nodes = [
            {"id": "f", "kind": "aggregate", "from": "rows", "by": ["path"], "window": "10s",
             "features": [{"name": "hits", "expr": "count(*)"}, {"name": "last", "expr": "max(path)"}]},
            {"id": "o", "kind": "sink.jsonl", "from": "f.final", "path": "out.jsonl"},
        ]
        self.assert_exit(self.engine("run", self.write("p.yaml", pipeline(*nodes))), OK)
        groups = lines(self.directory / "out.jsonl")
        self.assertEqual([row["hits"] for row in groups], [10] * 4)
        self.assertEqual(len({row["path"] for row in groups}), 4)
        for row in groups:
            self.assertLessEqual(max(len(row["path"]), len(row["last"])), 1024)
        self.assertIn("/short", {row["path"] for row in groups})
        node = {**nodes[0], "max_key": "8B"}
        run = self.engine("validate", self.write("p.yaml", pipeline(node)))
        self.assert_exit(run, REFUSED, "max_key")


class Live(Case):
    """A run that goes on."""

    def counter(self, base: str, event: str) -> int:
        """A counter of the source."""
        for line in get(f"{base}/metrics")[1].splitlines():
            if line.startswith("ja4_engine_node_") and 'node="rows"' in line and event in line:
                return int(float(line.rsplit(" ", 1)[1]))
        return 0

    def test_rejected_lines_are_limited_and_changes_too_large_refused(self):
        """Lines of one byte in large datagrams; then the filter of 2,000 ANDs, saved into the file that runs."""
        source = {"id": "rows", "kind": "source.unix_socket", "path": "in.socket", "time": "t",
                  "columns": {"t": "time", "path": "text", "n": "integer"}, "max_rejected": 100}

        def text(where: str) -> str:
            return pipeline(
                {"id": "some", "kind": "filter", "from": "rows", "where": where},
                {"id": "rejected", "kind": "sink.jsonl", "from": "rows.rejected", "path": "rejected.jsonl"},
                source=source, data_dir="data", serve={"listen": "127.0.0.1:0", "tables": {"some": "some"}},
            )

        path, log = self.write("p.yaml", text("n > 1")), self.directory / "log"
        with running("run", path, log=log) as process:
            base = served(log)
            datagram = b"x\n" * 40_000
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(str(self.directory / "in.socket"))
                for _ in range(10):
                    sender.send(datagram)
            wait_for("all lines to be counted", lambda: self.counter(base, "rejected_total") == 400_000)
            left_out = self.counter(base, 'event="rejected_left_out"')
            self.assertGreater(left_out, 350_000, "100 a second leave")
            self.write("p.yaml.new", text(DEEP)).rename(path)
            reloads = wait_for("the change", lambda: (json.loads(get(f"{base}/status")[1])["reloads"] or {}).get("last"))
            self.assertEqual(reloads["outcome"], "refused")
            self.assertIn("words and signs", reloads["message"])
            self.assertIsNone(process.poll())
            self.write("p.yaml.new", text("n > 2")).rename(path)
            wait_for("a change that is applied", lambda: json.loads(get(f"{base}/status")[1])["reloads"]["applied"] == 1)
        rejected = lines(self.directory / "rejected.jsonl")
        self.assertEqual(len(rejected), 400_000 - left_out)
        self.assertEqual({row["line"] for row in rejected}, {"x"})
