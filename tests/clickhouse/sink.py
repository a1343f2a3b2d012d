"""What tests of sink.clickhouse share: rows of a file, a pipeline that sends them, and what of them is in the table."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clickhouse.server import ask
from tests.support import Case, get, running, served, wait_for
from tests.traffic import START

PIPELINE = """\
name: sink
data_dir: data
nodes:
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }}
{nodes}
  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: {source} }}, url: "{url}", database: {database}, every: {every},
      max_rows: {max_rows}, timeout: {timeout}, max_pause: 200ms, concurrency: {concurrency}{options} }}
serve:
  listen: 127.0.0.1:0
  tables: {{ requests: requests }}
"""


class SinkCase(Case):
    """Rows of a file in ClickHouse."""

    def requests(self, prefix: str, count: int, step_ns: int = 10_000_000, folder: str = ".") -> None:
        """The file: each row has an own header X-Request-Id, `prefix-0` and so on."""

        def row(nth: int) -> dict:
            return {"timestamp": START + nth * step_ns, "src_ip": f"192.0.2.{nth % 250}", "src_port": 1024 + nth % 60000, "method": "GET",
                    "host": "www.example.test", "path": f"/{nth % 7}", "header_X-Request-Id": f"{prefix}-{nth}"}

        self.write(f"{folder}/requests.jsonl", "".join(json.dumps(row(nth)) + "\n" for nth in range(count)))

    def pipeline(self, url: str, database: str, *, every="100ms", max_rows=1000, timeout="1s", concurrency=4, folder=".", options="",
                 nodes="", source="requests") -> Path:
        """The pipeline; `options` are further ones of the sink, with a comma before each."""
        values = {name: value for name, value in locals().items() if name not in ("self", "folder")}
        return self.write(f"{folder}/sink.yaml", PIPELINE.format(**values))

    def ids(self, url: str, database: str, prefix: str, **credentials: str) -> list[str]:
        """The ids of the rows that the table has."""
        sql = f"SELECT header_x_request_id FROM {database}.http_logs WHERE startsWith(header_x_request_id, '{prefix}-')"
        return [row[0] for row in ask(url, sql, **credentials)]

    def assert_once(self, url: str, database: str, prefix: str, count: int, about: str) -> None:
        """Each row of the file is in the table, once."""
        self.assert_same_rows(self.ids(url, database, prefix), [f"{prefix}-{nth}" for nth in range(count)], about)

    @property
    def letters(self) -> list[Path]:
        """The dead letters of http_logs."""
        return sorted((self.directory / "data/dead_letters/store/http_logs").glob("*.arrows"))

    def send_again(self, letter: Path, **environment: str) -> subprocess.CompletedProcess:
        """Runs the command that is beside a dead letter, as an operator would."""
        command = letter.with_suffix(".reason").read_text().split("\n")[-2]
        return subprocess.run(["bash", "-c", command], env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True,
                              timeout=60, check=False, cwd="/")

    @contextmanager
    def run_of(self, path: Path) -> Iterator["Run"]:
        """The engine with this pipeline, while it runs."""
        with running("run", path, log=self.directory / "log") as process:
            try:
                yield Run(self, process)
            except BaseException:
                # A run that reads files ends when all is sent, which it may never be.
                process.kill()
                raise


class Run:
    """An engine that runs."""

    def __init__(self, case: SinkCase, process: subprocess.Popen) -> None:
        self.case, self.process, self.log = case, process, case.directory / "log"
        self.base = served(self.log)

    def sink(self) -> dict:
        """What GET /status says of the sink."""
        status, text = get(f"{self.base}/status")
        self.case.assertEqual(status, 200, self.log.read_text())
        return next(node for node in json.loads(text)["nodes"] if node["id"] == "store")

    def await_trouble(self, text: str) -> None:
        """Waits until the status says that rows are held, and why."""
        wait_for(f"trouble: {text}", lambda: text in self.sink()["troubles"].get("http_logs", ""))
        self.case.assertGreaterEqual(self.sink()["events"]["retries"], 1)

    def end(self) -> str:
        """Waits for a good end; what was logged."""
        self.case.assertEqual(self.process.wait(120), 0, self.log.read_text())
        return self.log.read_text()
