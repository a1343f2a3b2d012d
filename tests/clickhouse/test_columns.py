"""Columns that are too narrow, that somebody has dropped, and that a pipeline needs of its own: `validate --connect`, `migrate`."""

import json
import unittest
from pathlib import Path

from tests.clickhouse.server import PYTHON, ask, migrate, schema, shared
from tests.support import FAILED, OK, REFUSED, Case
from tests.traffic import START

PIPELINE = """\
name: columns
data_dir: data
nodes:
  - {{ id: rows, kind: source.file, path: in.jsonl, time: t, columns: {{ t: time, n: integer, f: float, s: text, at: time, b: boolean }} }}
  - {{ id: groups, kind: aggregate, from: rows, by: [s], features: [ {{ name: hits, expr: "count(*)" }}, {{ name: mean, expr: "avg(f)" }} ] }}
  - {{ id: store, kind: sink.clickhouse, from: {{ {tables} }}, url: "{url}", database: {database}, timeout: 5s, max_pause: 200ms }}
"""


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Columns(Case):
    """The columns of tables."""

    def pipeline(self, tables: str, database: str) -> Path:
        rows = [
            {"t": START, "n": 1, "f": 1.5, "s": "GET", "at": "2026-11-23T15:35:27.143731Z", "b": True},
            {"t": START + 10**6, "n": 5368709120, "f": 1e300, "s": "PROPFIND", "at": "2107-01-01T00:00:00Z"},
            {"t": START + 2 * 10**6, "n": -1, "s": "GET"},
        ]
        self.write("in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return self.write("p.yaml", PIPELINE.format(tables=tables, url=shared(), database=database))

    def test_a_column_that_is_too_narrow_is_named(self):
        """With the type to use, before anything is written; columns that have room for all are taken."""
        url = shared()
        ask(url, "CREATE DATABASE IF NOT EXISTS narrow")
        base = {"time": "DateTime64(9, 'UTC')", "seq": "UInt64", "n": "Int64", "f": "Float64", "s": "String",
                "at": "DateTime64(9, 'UTC')", "b": "Bool"}
        for nth, (column, ty, needed) in enumerate([
            ("n", "UInt8", "Int64"), ("n", "UInt64", "Int64"), ("n", "Nullable(Int32)", "Int64"), ("n", "Float32", "Int64"),
            ("seq", "UInt32", "UInt64"), ("f", "Float32", "Float64"), ("at", "DateTime", "DateTime64"),
            ("at", "Nullable(DateTime('Europe/Berlin'))", "DateTime64"),
            ("n", "Nullable(Int128)", ""), ("s", "LowCardinality(String)", ""), ("time", "DateTime", ""), ("b", "UInt8", ""),
        ]):
            columns = ", ".join(f"{name} {of}" for name, of in (base | {column: ty}).items())
            ask(url, f"CREATE TABLE narrow.t{nth} ({columns}) ENGINE = MergeTree ORDER BY seq")
            path = self.pipeline(f"t{nth}: rows", "narrow")
            run = self.engine("validate", "--connect", path)
            with self.subTest(column=column, type=ty):
                if not needed:
                    self.assert_exit(run, OK)
                    continue
                self.assert_exit(run, REFUSED, f"`{column}` as {ty}", needed)
                self.assert_exit(self.engine("run", path), FAILED, f"`{column}` as {ty}")
                self.assertEqual(ask(url, f"SELECT count() FROM narrow.t{nth}"), [["0"]])

    def test_ddl_makes_the_tables_of_a_pipeline(self):
        """Own tables as a whole, of tables of the schema the further columns."""
        url, database = shared(), schema(shared(), "ddl")
        path = self.pipeline("own: rows, clients: groups.final, http_logs: rows", database)
        self.assert_exit(self.engine("validate", "--connect", path), REFUSED, "migrate ddl")
        run = self.engine("migrate", "ddl", path)
        self.assert_exit(run, OK)
        self.assertIn("ALTER TABLE `ddl`.`http_logs` ADD COLUMN IF NOT EXISTS `n` Nullable(Int64)", run.stdout)
        self.assertNotIn("`seq` UInt64;", run.stdout)
        for _ in range(2):
            lines = [line for line in run.stdout.splitlines() if not line.startswith("--")]
            for statement in "\n".join(lines).split(";\n"):
                if statement.strip():
                    ask(url, statement)
        self.assert_exit(self.engine("validate", "--connect", path), OK)
        self.assert_exit(self.engine("run", path), OK)
        rows = ask(url, f"SELECT n, s, toYear(at, 'UTC'), f IS NULL FROM {database}.own ORDER BY seq")
        self.assertEqual(rows, [["1", "GET", "2026", "0"], ["5368709120", "PROPFIND", "2107", "0"], ["-1", "GET", "\\N", "1"]])
        self.assertEqual(ask(url, f"SELECT s, hits FROM {database}.clients ORDER BY s"), [["GET", "2"], ["PROPFIND", "1"]])
        self.assertEqual(ask(url, f"SELECT sum(n) FROM {database}.http_logs"), [["5368709120"]])
        self.assert_exit(self.engine("migrate", "ddl", self.write("in.jsonl", "name: x\nnodes: []\n")), REFUSED)

    def test_a_dropped_column_is_found_and_made_again(self):
        """`validate --connect`, `verify`, `plan` and `up` say the same of it; a dropped table likewise."""
        url, database = shared(), "drift"
        schema(url, database)
        self.addCleanup(migrate, url, database, "down", "--to", "-1", "--yes")
        self.assert_exit(migrate(url, database, "verify"), OK)
        self.write("in.jsonl", json.dumps({"timestamp": START, "src_ip": "192.0.2.1", "src_port": 1024, "method": "GET"}) + "\n")
        path = self.write("p.yaml", (
            "name: drift\ndata_dir: data\nnodes:\n  - { id: rows, kind: source.file, path: in.jsonl, format: reqin_log }\n"
            f"  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: rows, rejected: rows.rejected }}, url: \"{url}\", database: {database} }}\n"
        ))
        self.assert_exit(self.engine("validate", "--connect", path), OK)
        places = f"SELECT table, name, type, position FROM system.columns WHERE database = '{database}' AND table IN ('http_logs', 'rejected') ORDER BY ALL"
        before = ask(url, places)
        ask(url, f"ALTER TABLE {database}.http_logs DROP COLUMN status_code, DROP COLUMN response_size")
        ask(url, f"DROP TABLE {database}.rejected")
        self.assert_exit(self.engine("validate", "--connect", path), REFUSED, "status_code", "migrate up")
        run = migrate(url, database, "verify")
        self.assert_exit(run, FAILED, "are missing")
        self.assertIn("the column `status_code` of http_logs", run.stdout)
        self.assertIn("the table rejected", run.stdout)
        self.assertIn("ADD COLUMN IF NOT EXISTS `status_code` UInt16", migrate(url, database, "plan").stdout)
        run = migrate(url, database, "up", "--skip-unsupported")
        self.assert_exit(run, OK)
        self.assertIn("`status_code` of http_logs was missing and is made again", run.stdout)
        self.assertEqual(ask(url, places), before)
        self.assertIn("nothing to do", migrate(url, database, "up", "--skip-unsupported").stdout)
        self.assert_exit(migrate(url, database, "verify"), OK)
        self.assert_exit(self.engine("validate", "--connect", path), OK)
