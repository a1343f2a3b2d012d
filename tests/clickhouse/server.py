"""A ClickHouse for a test: the server that CLICKHOUSE_URL names, else chdb behind the front, started once a process."""

import atexit
import os
import re
import signal
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from functools import cache
from pathlib import Path

from tests.support import ROOT, engine, wait_for

# Python with chdb-core, made by `make test-tools`.
PYTHON = os.environ.get("CLICKHOUSE_PYTHON", "")
SECRETS = ("--set", "data_writer_password=writer", "--set", "analyst_password=analyst")


class Server:
    """The front as a process of its own, which can be killed and started again over the same data and port."""

    def __init__(self, user: str = "default", password: str = "") -> None:
        self.user, self.password = user, password
        self.directory = tempfile.TemporaryDirectory(prefix="ja4-clickhouse-")
        self.path = Path(self.directory.name)
        self.port = 0
        self.start()

    def start(self) -> None:
        log = self.path / "front.log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [PYTHON, ROOT / "tests/clickhouse/front.py", "--data", self.path / "data", "--port", str(self.port),
                 "--user", self.user, "--password", self.password],
                stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )
        found = wait_for("ClickHouse", lambda: re.search(r"listening on http://127.0.0.1:(\d+)", log.read_text()) or self.process.poll())
        if isinstance(found, int):
            raise AssertionError(f"the front ended with {found}:\n{log.read_text()}")
        self.port = int(found[1])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.kill()
        self.directory.cleanup()

    @property
    def url(self) -> str:
        """Without credentials."""
        return f"http://127.0.0.1:{self.port}"


@cache
def shared() -> str:
    """The URL of the server that all tests may use which do not end it."""
    if os.environ.get("CLICKHOUSE_URL"):
        return os.environ["CLICKHOUSE_URL"]
    server = Server()
    atexit.register(server.close)
    return server.url


def ask(url: str, sql: str, **parameters: str) -> list[list[str]]:
    """The rows that a query answers, as text."""
    query = urllib.parse.urlencode({"default_format": "TabSeparatedRaw", **parameters})
    try:
        with urllib.request.urlopen(f"{url}/?{query}", data=sql.encode(), timeout=120) as answer:
            return [line.split("\t") for line in answer.read().decode().splitlines()]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(error.read().decode()) from None


def migrate(url: str, database: str, *arguments: object):
    """Runs `ja4-engine migrate`."""
    return engine("migrate", *arguments, "--url", url, "--database", database)


@cache
def schema(url: str, database: str) -> str:
    """A database with everything applied. Its rows stay: those of tests have fixed times, which pass by."""
    run = migrate(url, database, "up", "--skip-unsupported", *SECRETS)
    if run.returncode:
        raise AssertionError(run.stderr)
    with_ttl = f"SELECT name FROM system.tables WHERE database = '{database}' AND match(engine_full, '\\\\bTTL ') AND engine LIKE '%MergeTree'"
    for (table,) in ask(url, with_ttl):
        ask(url, f"ALTER TABLE {database}.{table} REMOVE TTL")
    return database
