"""Generated traffic through the binary: each row equals the oracle's, for any number of workers and any order."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.live_engine import results
from tests.oracle_correlate import Result, Rules, correlate, judged, remaining
from tests.support import OK, Case, lines
from tests.traffic import FILES, HELLO, IDS, MS, REQUEST, SECOND, Event, Traffic, shuffled, write

LATENESS = 2 * SECOND
WORKERS = (1, 2, 4)
SEEDS = tuple(range(1, 1 + int(os.environ.get("SEEDS", 3))))

PIPELINE = """\
name: rows
nodes:
  - {{ id: hellos, kind: source.file, path: hellos.jsonl, format: ja4sentinel, lateness: {lateness}ms }}
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log, lateness: {lateness}ms }}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }}{options} }}
  - {{ id: rows, kind: sink.jsonl, from: correlated, path: out/rows.jsonl }}
  - {{ id: late, kind: sink.jsonl, from: correlated.late, path: out/late.jsonl }}
"""


@dataclass
class Output:
    """What a run wrote: results by request in the order of lines, and the ids of late rows by stream."""

    rows: list[tuple[str, Result]] = field(default_factory=list)
    late: dict[str, list[str]] = field(default_factory=dict)


class Rows(Case):
    """correlate between files."""

    def run_on(self, events: list[Event], workers: int, options: str = "") -> Output:
        """Runs the pipeline on both streams."""
        write(events, self.directory)
        text = PIPELINE.format(lateness=LATENESS // MS, options=f", {options}" if options else "")
        self.assert_exit(self.engine("run", "--workers", workers, self.write("rows.yaml", text)), OK)
        late = lines(self.directory / "out/late.jsonl")
        return Output(
            results(lines(self.directory / "out/rows.jsonl")),
            {HELLO: sorted(row["conn_id"] for row in late if row["orphan_side"] == "B"),
             REQUEST: sorted(row["header_x_request_id"] for row in late if row["orphan_side"] == "A")},
        )

    def expected(self, rules: Rules = Rules()) -> Output:
        """What the oracle says of the files as they lie there, rows sorted."""
        sides = {stream: judged(file_rows(self.directory, stream), LATENESS) for stream in FILES}
        results = correlate(sides[HELLO][0], sides[REQUEST][0], rules)
        late = {stream: sorted(row[IDS[stream]] for row in remaining(side[1], rules)) for stream, side in sides.items()}
        return Output(sorted(results.items(), key=lambda row: row[0]), late)

    def check(self, events: list[Event], workers: int, options: str = "", rules: Rules = Rules()) -> Output:
        """Runs, compares, and returns what was expected."""
        got = self.run_on(events, workers, options)
        expected = self.expected(rules)
        self.assert_same_rows(got.rows, expected.rows)
        self.assertEqual(got.late, expected.late)
        return expected

    def test_rows_equal_the_oracles_for_any_number_of_workers(self):
        """Several seeds, with late rows and skewed clocks; the traffic has every kind of result."""
        for seed in SEEDS:
            traffic = Traffic(seed=seed, seconds=90, lateness=LATENESS, late=0.02, skew=(seed % 3 - 1) * 200 * MS)
            events = traffic.events()
            for workers in WORKERS:
                with self.subTest(seed=seed, workers=workers):
                    expected = self.check(events, workers)
            with self.subTest(seed=seed):
                self.assertGreater(min(map(len, expected.late.values())), 5)
                orphans = sum(hello is None for _, (hello, _) in expected.rows)
                kept = sum(keepalives > 1 for _, (_, keepalives) in expected.rows)
                self.assertGreater(min(orphans, kept), len(expected.rows) // 20)
                print(f"\n    seed {seed}: {len(expected.rows)} rows, {orphans} without a hello, {kept} kept alive, late "
                      f"{ {stream: len(ids) for stream, ids in expected.late.items()} } ", end="")

    def test_slow_requests_have_the_hello_of_their_begin(self):
        """Requests of up to ten minutes, logged at their end: none is late, and the ports are used again meanwhile."""
        events = Traffic(seed=17, seconds=60, lateness=LATENESS, slow=0.2, reuse=0.6).events()
        slow = {event.id for event in events if event.stream == REQUEST and event.end - event.time > 60 * SECOND}
        for workers in WORKERS:
            with self.subTest(workers=workers):
                expected = self.check(events, workers)
        self.assertEqual(expected.late, {HELLO: [], REQUEST: []})
        joined = [hello for name, (hello, _) in expected.rows if name in slow and hello]
        self.assertGreater(len(joined), len(slow) // 2)

    def test_the_order_of_arrival_does_not_matter(self):
        """Shuffled within the lateness, rows are the same; only ties are broken by it, so there are none."""
        events = Traffic(seed=11, seconds=60, lateness=LATENESS, ties=0).events()
        first = self.check(events, workers=2)
        self.assertEqual(first.late, {HELLO: [], REQUEST: []})
        for seed in SEEDS:
            with self.subTest(seed=seed):
                again = self.check(shuffled(events, LATENESS, seed), workers=WORKERS[seed % len(WORKERS)])
                self.assertEqual(again, first)

    def test_ties_of_time_are_broken_by_the_order_in_each_file(self):
        """Many rows at the same time, on few ports."""
        traffic = Traffic(seed=12, seconds=30, clients=3, connections_per_s=60, ties=0.9, lateness=LATENESS)
        for workers in WORKERS:
            with self.subTest(workers=workers):
                self.check(traffic.events(), workers)

    def test_every_option_of_the_join(self):
        """Each with an oracle that knows the option."""
        cases = {
            "mode: one_to_one": Rules(one_to_one=True),
            "key: connection": Rules(connection=True),
            "window: 2s, keepalive_ttl: 5s": Rules(window=2 * SECOND, keepalive_ttl=5 * SECOND),
            "orphans: { emit_after: 1500ms }": Rules(tolerance=1500 * MS),
            "tolerance: 100ms": Rules(tolerance=100 * MS),
            "max_age: 60s": Rules(max_age=60 * SECOND),
            "longest_request: 20s": Rules(longest_request=20 * SECOND),
            "exclude_source_ips: [198.18.0.1, '2001:db8::/44']": Rules(exclude=("198.18.0.1", "2001:db8::/44")),
        }
        events = Traffic(seed=13, seconds=60, lateness=LATENESS, slow=0.1).events()
        plain = self.check(events, workers=2)
        for options, rules in cases.items():
            with self.subTest(options):
                expected = self.check(events, 2, options, rules)
                self.assertTrue(rules.connection or expected.rows != plain.rows, "the option changes nothing here")

    def test_what_two_sensors_see_is_one_hello(self):
        """The first sighting counts, and the second is no newer connection."""
        events = Traffic(seed=15, seconds=60, two_sensors=0.5, lateness=LATENESS).events()
        for workers in WORKERS:
            with self.subTest(workers=workers):
                expected = dict(self.check(events, workers).rows)
        again = sum(hello is not None and hello.endswith("again") for hello, _ in expected.values())
        self.assertTrue(0 < again < len(expected) // 4, again)

    def test_http_3_and_tls_over_one_port_are_two_connections(self):
        """The same client, address and port: each request gets the hello of its own transport."""
        traffic = Traffic(seed=14, seconds=30, clients=2, http3=0.5, reuse=0.8, without_hello=0, late=0)
        events = traffic.events()
        expected = dict(self.check(events, workers=2).rows)
        by_id = {event.id: event for event in events if event.stream == HELLO}
        quic = [hello for hello, _ in expected.values() if hello and by_id[hello].fields["ja4"].startswith("q")]
        self.assertGreater(len(quic), 20)
        # Nothing but the transport tells them apart: as one key, other rows would come out.
        alike = [event if event.stream == HELLO else replace(event, fields={**event.fields, "http_version": "HTTP/2.0"})
                 for event in events]
        write(alike, self.directory)
        self.assertNotEqual(dict(self.expected().rows), expected)


def file_rows(directory: Path, stream: str) -> list[dict]:
    """The rows of a stream's file, in the file's order."""
    return lines(directory / FILES[stream])
