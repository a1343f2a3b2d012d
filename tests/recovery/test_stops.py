"""Orderly stops of sources that cannot be asked again, and of those that can."""

import fcntl
import json
import os
import subprocess
import threading
import time
from pathlib import Path

from tests.feeder import SOCKETS, connected
from tests.live_engine import LiveCase
from tests.support import ENGINE, LIMIT_S, OK, wait_for
from tests.traffic import REQUEST, SECOND

ROWS = 150_000
COLUMNS = "columns: { time: time, n: integer }"


def line(n: int, at: int) -> bytes:
    """A row of the columns above, with more that nobody wants: what is read at once does not end with a line."""
    return json.dumps({"time": at, "n": n, "padding": "x" * (n % 97)}).encode() + b"\n"


class Stops(LiveCase):
    """One source, one sink."""

    def receives(self) -> bool:
        """Nobody listens here."""
        return True

    def numbers(self, name: str = "rows.jsonl") -> list[int]:
        """What a sink has written."""
        return [row["n"] for row in self.output(name)]

    def size(self) -> int:
        """Bytes that the sink has written."""
        path = self.data / "rows.jsonl"
        return path.stat().st_size if path.exists() else 0

    def piped(self) -> tuple[int, Path]:
        """A pipeline that reads a named pipe. A descriptor of it and its path: it stays open while no engine runs, so that a
        writer is not told that nobody reads.
        """
        fifo = self.directory / "rows.fifo"
        os.mkfifo(fifo)
        self.write("live.yaml", f"""\
name: pipe
data_dir: data
nodes:
  - {{ id: rows, kind: source.file, path: rows.fifo, {COLUMNS}, lateness: 100ms }}
  - {{ id: file, kind: sink.jsonl, from: rows, path: data/rows.jsonl }}
serve: {{ listen: 127.0.0.1:0, tables: {{ rows: rows }} }}
""")
        descriptor = os.open(fifo, os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        return descriptor, fifo

    def test_a_pipe_without_a_row_ends_with_its_writer(self):
        """By its name and as standard input, also where the writer has gone before anybody reads."""
        fifo = self.directory / "rows.fifo"
        os.mkfifo(fifo)
        for path in ("rows.fifo", "-"):
            self.write("empty.yaml", f"""\
name: empty
nodes:
  - {{ id: rows, kind: source.file, path: "{path}", {COLUMNS} }}
  - {{ id: file, kind: sink.jsonl, from: rows, path: empty.jsonl }}
""")
            command = [ENGINE, "run", self.directory / "empty.yaml"]
            if path == "-":
                reader, writer = os.pipe()
                os.close(writer)
                run = subprocess.run(command, stdin=reader, capture_output=True, text=True, timeout=LIMIT_S, check=False)
                os.close(reader)
            else:
                process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
                # Waits for the reader.
                fifo.open("wb").close()
                run = subprocess.CompletedProcess(command, process.wait(LIMIT_S), "", process.stderr.read())
                process.stderr.close()
            self.assert_exit(run, OK, "the file is empty")

    def test_a_pipe_is_left_where_the_next_line_begins(self):
        """SIGTERM while a writer fills it: what was taken is in the log, the rest in the pipe, and no line is cut."""
        holder, fifo = self.piped()
        fcntl.fcntl(holder, fcntl.F_SETPIPE_SZ, 1 << 16)
        written = threading.Event()

        def write() -> None:
            with fifo.open("wb", buffering=0) as pipe:
                for first in range(0, ROWS, 100):
                    text = b"".join(line(n, time.time_ns()) for n in range(first, first + 100))
                    while text:
                        text = text[pipe.write(text):]
            written.set()

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        stops = 0
        while not written.is_set():
            self.begin()
            size = self.size()
            wait_for("more rows", lambda: self.size() > size or written.is_set(), pause_s=0.001)
            self.stop()
            stops += 1
        self.begin()
        wait_for("the rest", lambda: len(self.numbers()) >= ROWS)
        self.stop()
        print(f"\n    {stops} stops ", end="")
        self.assertGreater(stops, 1)
        self.assert_same_rows(self.numbers(), range(ROWS))

    def test_what_waits_in_a_pipe_is_not_late(self):
        """Nobody read it for longer than the lateness: time is what was read, not the clock."""
        pipe, _ = self.piped()
        self.begin()
        os.write(pipe, line(0, time.time_ns()))
        wait_for("the first row", lambda: self.numbers() == [0])
        self.stop()
        at = time.time_ns()
        os.write(pipe, b"".join(line(n, at + n) for n in range(1, 101)))
        wait_for("the rows to be old", lambda: time.time_ns() > at + SECOND)
        self.begin()
        wait_for("the rows", lambda: self.numbers() == list(range(101)))
        self.assertEqual(self.metric("late_rows"), 0)
        self.stop()

    def test_a_recorded_file_beside_a_live_source_is_read_to_its_end_by_the_next_run(self):
        """A stop in the middle of it is not its end: nothing behind counts as past."""
        rows = 400_000
        at = time.time_ns() - 3600 * SECOND
        self.write("recorded.jsonl", b"".join(line(n, at + n * 1_000_000) for n in range(rows)))
        self.write("live.yaml", f"""\
name: both
data_dir: data
nodes:
  - {{ id: recorded, kind: source.file, path: recorded.jsonl, {COLUMNS} }}
  - {{ id: file, kind: sink.jsonl, from: recorded, path: data/rows.jsonl }}
  - {{ id: live, kind: source.unix_socket, path: {SOCKETS[REQUEST]}, {COLUMNS} }}
  - {{ id: live_file, kind: sink.jsonl, from: live, path: data/live.jsonl }}
serve: {{ listen: 127.0.0.1:0, tables: {{ rows: recorded }} }}
""")
        self.begin()
        wait_for("rows", self.size, pause_s=0.001)
        self.stop()
        before = len(self.numbers())
        print(f"\n    {before} of {rows} rows before the stop ", end="")
        self.assertLess(before, rows)
        self.begin()
        wait_for("the rest", lambda: len(self.numbers()) >= rows)
        self.stop()
        self.assert_same_rows(self.numbers(), range(rows))

    def test_a_row_as_old_as_the_lateness_is_not_late_after_a_stop(self):
        """What happened before the stop and is sent after it, as senders do that wait for the socket."""
        self.write("live.yaml", f"""\
name: late
data_dir: data
nodes:
  - {{ id: live, kind: source.unix_socket, path: {SOCKETS[REQUEST]}, {COLUMNS}, lateness: 120s }}
  - {{ id: file, kind: sink.jsonl, from: live, path: data/rows.jsonl }}
serve: {{ listen: 127.0.0.1:0, tables: {{ rows: live }} }}
""")
        for n in range(2):
            self.begin()
            wait_for("the socket", (self.directory / SOCKETS[REQUEST]).exists)
            with connected(self.directory / SOCKETS[REQUEST]) as sender:
                sender.send(line(n, time.time_ns() - n * 60 * SECOND))
            wait_for("the row", lambda: self.metric('rows_out_total{node="live"') == 1)
            self.assertEqual(self.metric('late_rows'), 0)
            self.stop()
