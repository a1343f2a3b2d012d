"""Request logs as they come: broken lines, empty, missing; and outputs that cannot be written."""

import json

from tests.support import FAILED, OK, RECORDING, REFUSED, Case, lines

LOG = RECORDING / "requests.jsonl"

# Each is one line that cannot become a row, with a word of its reason.
BROKEN = {
    b"not json": "",
    b'{"timestamp":1795448127143731000,"src_ip":"203.0.113.21"': "",
    b'{"timestamp":1795448127143731000,"src_ip":"203.0.113.999","src_port":41770}': "src_ip",
    b'{"timestamp":1795448127143731000,"src_ip":"203.0.113.21","src_port":70000}': "src_port",
    b'{"timestamp":1795448127143731000,"src_port":41770}': "src_ip",
    b'{"src_ip":"203.0.113.21","src_port":41770}': "time",
    b'{"timestamp":4102444800000000000,"src_ip":"203.0.113.21","src_port":41770}': "",  # the year 2100
    b'{"timestamp":1795448127143731000,"src_ip":"203.0.113.21","src_port":41770,"status_code":"many"}': "status_code",
    b"[1, 2, 3]": "",
    b"[" * 100_000: "",
    b'{"path":"\xff\xfe","timestamp":1795448127143731000,"src_ip":"203.0.113.21","src_port":41770': "",
    b"\x00\x1b[31m\x07": "",
    b'{"path":"' + b"a" * (2 << 20) + b'"}': "",
}


class Logs(Case):
    """A log to JSON lines, with the port for what is rejected."""

    def run_on(self, log, out="requests.out"):
        """The run over a log."""
        pipeline = self.write(
            "log.yaml",
            "name: log\nnodes:\n"
            f"  - {{ id: requests, kind: source.file, path: {json.dumps(str(log))}, format: reqin_log }}\n"
            f"  - {{ id: out, kind: sink.jsonl, from: requests, path: {json.dumps(str(out))} }}\n"
            "  - { id: rejects, kind: sink.jsonl, from: requests.rejected, path: rejects.out }\n",
        )
        return self.engine("run", pipeline)

    def test_broken_lines_are_counted_and_kept_with_their_reason(self):
        """All good lines go on; each bad one leaves through `rejected` with its number."""
        good = LOG.read_bytes().splitlines()[:200]
        mixed, places = [], []
        for index, line in enumerate(good):
            mixed.append(line)
            if index < len(BROKEN):
                places.append(len(mixed))
                mixed.append(list(BROKEN)[index])
        run = self.run_on(self.write("mixed.jsonl", b"\n".join(mixed)))
        self.assert_exit(run, OK)
        self.assertNotIn("\x1b[31m\x07", run.stderr)
        rows, rejects = lines(self.directory / "requests.out"), lines(self.directory / "rejects.out")
        self.assertEqual(sorted(row["seq"] for row in rows), [n for n in range(len(mixed)) if n not in places])
        self.assertEqual(sorted(row["seq"] for row in rejects), places)
        for row in rejects:
            broken = mixed[row["seq"]]
            self.assertIn(BROKEN[broken], row["reason"], broken[:80])
            self.assertLessEqual(len(row["line"].encode()), 4 << 12)
        self.assertRegex(run.stderr, rf"requests\b.*\b{len(BROKEN)}\b")

    def test_an_empty_log_gives_no_rows_and_no_error(self):
        """A log that has just been rotated is empty."""
        run = self.run_on(self.write("empty.jsonl", b""))
        self.assert_exit(run, OK)
        self.assertEqual(lines(self.directory / "requests.out"), [])

    def test_the_last_line_needs_no_newline(self):
        """Neither do lines need Unix ends."""
        log = LOG.read_bytes().splitlines()[:3]
        run = self.run_on(self.write("ends.jsonl", log[0] + b"\r\n\n" + log[1] + b"\n" + log[2]))
        self.assert_exit(run, OK)
        self.assertEqual(len(lines(self.directory / "requests.out")), 3)

    def test_a_missing_log_is_refused_with_its_place(self):
        """At once, before anything runs."""
        run = self.run_on(self.directory / "nowhere.jsonl")
        self.assert_exit(run, REFUSED, "nowhere.jsonl", "log.yaml:3:")

    def test_a_directory_is_no_log(self):
        """It can be opened, but not read."""
        run = self.run_on(self.directory)
        self.assert_exit(run, REFUSED, "log.yaml:3:")

    def test_a_full_disk_ends_the_run(self):
        """Rows that cannot be written are an error, not a loss."""
        run = self.run_on(LOG, out="/dev/full")
        self.assert_exit(run, FAILED, "/dev/full")
