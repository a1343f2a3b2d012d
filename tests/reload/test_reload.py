"""Live change: one outcome for each reload, and no row lost, doubled or computed from forgotten state.

RELOADS says how often, SEED repeats a run; it is printed.
"""

import json
import os
import random
import re
import signal
import socket
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.feeder import SOCKETS, Feeder, connected
from tests.live_engine import RULES, LiveCase, feed_for, pipeline, traffic
from tests.oracle_correlate import Rules
from tests.support import OK, get, sql, wait_for
from tests.traffic import HELLO, REQUEST, SECOND

RELOADS = int(os.environ.get("RELOADS", 25))
STOPS = min(RELOADS, 8)
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
KINDS = ("window", "features", "behind", "sink", "typo", "missing", "comment", "signal")
APPLIED, REFUSED, UNCHANGED = OUTCOMES = ("applied", "refused", "unchanged")
WINDOWS = {"3s": RULES, "6s": Rules(window=6 * SECOND, keepalive_ttl=RULES.keepalive_ttl)}

FEATURES = "- { name: hits, expr: count(*) }\n"
# What depends on the order of rows is computed for all of them or not at all: this ends a run.
NODES = """\
  - { id: features, kind: aggregate, from: correlated, by: [host, src_ip], window: 2s, features: features.yaml }
  - { id: features_file, kind: sink.jsonl, from: features, path: data/features.jsonl }
"""
# A sink whose note of how far it is cannot be read.
FAILING = "  - { id: damaged, kind: sink.jsonl, from: features, path: data/damaged.jsonl }\n"
# The same features, all of them let through: what each change replaces is another part of the chain.
CHAIN = """\
  - {{ id: features, kind: aggregate, from: correlated, by: [host, src_ip], window: 2s, max_groups: {groups}, features: features.yaml }}
  - {{ id: some, kind: filter, from: features, where: "hits > {fewest}" }}
  - {{ id: features_file, kind: sink.jsonl, from: some, path: data/features.jsonl }}
"""


@dataclass
class Version:
    """The pipeline as it should be running, and what its file says, which may be broken."""

    window: str = "3s"
    copy: int = 0  # number of a further sink, 0 for none
    copies: int = 0
    groups: int = 100_000
    fewest: int = -1
    broken: bool = False

    def text(self) -> str:
        """The pipeline."""
        copy = f"  - {{ id: copy, kind: sink.jsonl, from: correlated, path: data/copy-{self.copy}.jsonl }}\n"
        chain = CHAIN.format(groups=self.groups, fewest=self.fewest)
        return pipeline(nodes=chain + (copy if self.copy else ""), tables=", live: some", window=self.window)

    def change(self, kind: str) -> tuple[str | None, str]:
        """The file's next content, or none for a signal alone, and the outcome that it must have."""
        if kind == "signal":
            return None, REFUSED if self.broken else UNCHANGED
        self.broken = kind in ("typo", "missing")
        if kind == "typo":
            return self.text().replace("window:", "widnow:", 1), REFUSED
        if kind == "missing":
            return self.text().replace("features.yaml", "nowhere.yaml"), REFUSED
        if kind == "comment":
            return f"# {time.time_ns()}\n{self.text()}", UNCHANGED
        if kind == "window":
            self.window = "6s" if self.window == "3s" else "3s"
        elif kind == "features":
            self.groups += 1
        elif kind == "behind":
            self.fewest = -1 - self.fewest
        elif self.copy:
            self.copy = 0
        else:
            self.copies += 1
            self.copy = self.copies
        return self.text(), APPLIED


class Reload(LiveCase):
    """A running engine and its pipeline file."""

    def reloads(self) -> dict:
        """Reloads so far, as GET /status has them."""
        status, text = get(f"{self.base}/status")
        self.assertEqual(status, 200, text)
        return json.loads(text)["reloads"]

    def reload(self, content: str | None, expected: str) -> dict:
        """Replaces the file in one step or sends SIGHUP; waits for the outcome, which must be one and as expected."""
        before = self.reloads()
        if content is None:
            self.process.send_signal(signal.SIGHUP)
        else:
            self.write("live.yaml.new", content).rename(self.directory / "live.yaml")
        wait_for(f"a reload that is {expected}", lambda: total(self.reloads()) > total(before))
        now = self.reloads()
        self.assertEqual({outcome: now[outcome] - before[outcome] for outcome in OUTCOMES},
                         {outcome: int(outcome == expected) for outcome in OUTCOMES}, now["last"])
        self.assertEqual(now["last"]["outcome"], expected)
        return now["last"]

    def test_many_reloads_lose_and_double_nothing(self):
        """Another window, other features, another filter behind them, a sink more or less, a typo, a missing file, a comment, a
        signal: in random order, under load.
        """
        print(f"\n    {RELOADS} reloads, SEED={SEED} ", end="", flush=True)
        rng = random.Random(SEED)
        version, expected = Version(), Counter()
        began: dict[int, int] = {}
        ended: dict[int, int] = {}
        self.write("features.yaml", FEATURES)
        self.write("live.yaml", version.text())
        self.begin()
        with Feeder(traffic(SEED, seconds=RELOADS * 4 + 60).events(), self.directory) as feeder:
            feed_for(feeder, 1)
            for _ in range(RELOADS):
                copy = version.copy
                content, outcome = version.change(rng.choice(KINDS))
                if copy and not version.copy:
                    ended[copy] = time.time_ns()
                self.reload(content, outcome)
                expected[outcome] += 1
                if version.copy and not copy:
                    began[version.copy] = time.time_ns()
                feed_for(feeder, rng.uniform(0, 0.4))
            feed_for(feeder, 1)
        self.await_requests(feeder.ids(REQUEST))
        self.await_windows()
        self.assert_told(expected)
        self.assert_live()
        self.stop()
        self.assert_rows(feeder, {stream: feeder.ids(stream) for stream in SOCKETS})
        self.assert_windows()
        for number, since in began.items():
            self.assert_copy(feeder, number, since, ended.get(number, time.time_ns()))

    def assert_told(self, expected: Counter) -> None:
        """The log, the metrics and the command say the same as the status."""
        log = self.log.read_text()
        self.assertEqual({outcome: len(re.findall(f"reload: {outcome}", log)) for outcome in OUTCOMES},
                         {outcome: expected[outcome] for outcome in OUTCOMES}, log)
        run = self.engine("status", "--url", self.base)
        self.assert_exit(run, OK)
        for outcome in OUTCOMES:
            self.assertEqual(self.metric(f'reloads_total{{outcome="{outcome}"}}'), expected[outcome])
            self.assertRegex(run.stdout, rf"{outcome}\W+{expected[outcome]}\b|\b{expected[outcome]} {outcome}")
        print({outcome: expected[outcome] for outcome in OUTCOMES}, end=" ")

    def assert_live(self) -> None:
        """No group of a window that has ended is shown as one that may still change."""
        query = "SELECT * FROM live WHERE NOT final ORDER BY window_start LIMIT 3"
        wait_for("live groups to become final", lambda: not sql(self.base, query))
        final = sql(self.base, "SELECT count(*) AS groups FROM live")
        self.assertGreater(final[0]["groups"], 0)

    def assert_rows(self, feeder: Feeder, accepted: dict[str, set[str]]) -> None:
        """Each request once, with the hello that it gets with one of the windows and all hellos before it."""
        rows, late = self.rows(), self.late()
        self.assert_same_rows([name for name, _ in rows] + late[REQUEST], accepted[REQUEST])
        possible = [self.oracle(feeder.sent, accepted, rules) for rules in WINDOWS.values()]
        wrong = [(row, [results[row[0]] for results in possible]) for row in rows
                 if row[1] not in [results[row[0]] for results in possible]]
        self.assertEqual(wrong[:5], [], f"{len(wrong)} rows are right with neither window")
        print(f"{len(rows)} rows, {sum(a != possible[1][name] for name, a in possible[0].items())} depend on the window "
              f"{len(late[REQUEST])} late ", end="")

    def assert_copy(self, feeder: Feeder, number: int, since: int, until: int) -> None:
        """The sink that was added has what the first one has, whole for the time in which it was there."""
        rows = self.rows(f"copy-{number}.jsonl")
        wrong = Counter(rows) - Counter(self.rows())
        self.assertEqual(wrong, Counter(), "rows that the first sink does not have as often")
        late = set(self.late()[REQUEST])
        # A row leaves its correlation up to the lateness and the tolerance after its time.
        due = {one.id for one in feeder.sent if one.stream == REQUEST and since < one.at < until - 4 * SECOND} - late
        self.assertEqual(due.difference(name for name, _ in rows), set())

    def test_a_signal_right_after_an_edit_has_one_outcome(self):
        """Whoever edits the file and sends SIGHUP at once hears of it once."""
        self.write("features.yaml", FEATURES)
        version = Version()
        self.write("live.yaml", version.text())
        self.begin()
        with Feeder(traffic(SEED, seconds=60).events(), self.directory) as feeder:
            feed_for(feeder, 1)
            for changed in range(1, 4):
                content, _ = version.change("behind")
                self.write("live.yaml.new", content).rename(self.directory / "live.yaml")
                self.process.send_signal(signal.SIGHUP)
                wait_for("the change", lambda: self.reloads()["applied"] >= changed)
            # Whoever watches the files has seen those changes when it has seen this one.
            self.reload(*version.change("behind"))
        self.assertEqual({outcome: self.reloads()[outcome] for outcome in OUTCOMES},
                         {APPLIED: 4, REFUSED: 0, UNCHANGED: 0})
        self.stop()

    def test_what_is_unchanged_keeps_running(self):
        """Other features: an island apart from them goes on with its file, and none of its rows is read again."""
        self.write("features.yaml", FEATURES)
        version = Version()
        apart = "  - { id: apart, kind: filter, from: requests, where: \"src_port > 0\" }\n" \
                "  - { id: apart_file, kind: sink.jsonl, from: apart, path: data/apart.jsonl }\n"

        def change(kind: str) -> dict:
            content, outcome = version.change(kind)
            return self.reload(content.replace("serve:", f"{apart}serve:"), outcome)

        self.write("live.yaml", version.text().replace("serve:", f"{apart}serve:"))
        self.begin()
        with Feeder(traffic(SEED, seconds=60).events(), self.directory) as feeder:
            feed_for(feeder, 3)
            opened = self.files_open("apart.jsonl")
            for kind in ("features", "behind", "sink"):
                self.assertRegex(change(kind)["message"], r"^correlated, .*features, .*rebuilt, from tick \d+ on")
                feed_for(feeder, 1)
            self.assertEqual(self.files_open("apart.jsonl"), opened)
        self.await_requests(feeder.ids(REQUEST))
        self.await_windows()
        passed = self.metric(r'rows_in_total\{node="apart"')
        self.assert_live()
        self.stop()
        # What had been made again would have counted what it read of the spool.
        self.assertEqual(passed, len(feeder.ids(REQUEST)))
        self.assertEqual(len(self.output("apart.jsonl")), passed)
        self.assert_rows(feeder, {stream: feeder.ids(stream) for stream in SOCKETS})
        self.assert_windows()

    def files_open(self, name: str) -> list[str]:
        """The descriptors by which the engine has a file of the data directory open."""
        descriptors = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sorted(one.name for one in descriptors if one.resolve() == (self.data / name).resolve())

    def test_an_orderly_stop_in_the_middle_of_a_change(self):
        """SIGTERM at any moment of a change, under load: the next start goes on where either pipeline has ended."""
        print(f"\n    {STOPS} stops, SEED={SEED} ", end="", flush=True)
        rng = random.Random(SEED)
        version = Version()
        self.write("features.yaml", FEATURES)
        self.write("live.yaml", version.text())
        with Feeder(traffic(SEED, seconds=STOPS * 6 + 60).events(), self.directory) as feeder:
            for _ in range(STOPS):
                self.begin()
                feed_for(feeder, 1)
                content, _ = version.change("window")
                self.write("live.yaml", content)
                self.process.send_signal(signal.SIGHUP)
                # From before the change is noticed to after its end.
                end = time.monotonic() + rng.uniform(0, 0.4)
                wait_for("the moment", lambda: time.monotonic() > end, pause_s=0.002)
                self.stop()
            self.begin()
            since = feed_for(feeder, 1)
        self.await_requests(feeder.ids(REQUEST, since=since))
        self.await_windows()
        self.stop()
        log = self.logs()
        print(f"{len(re.findall('reload: applied', log))} changes applied", end=" ")
        self.assert_rows(feeder, {stream: set(self.exported(stream)) for stream in SOCKETS})
        self.assert_windows()

    def test_a_stop_while_a_source_that_is_gone_has_no_successor(self):
        """SIGTERM after a source has ended for a change, while the new nodes still catch up: an orderly stop, and a soon one."""
        more = "  - { id: more, kind: source.unix_socket, path: more.socket, format: reqin_log }\n" \
               "  - { id: more_file, kind: sink.jsonl, from: more, path: data/more.jsonl }\n"
        self.write("live.yaml", pipeline(nodes=more))
        self.begin()
        with Feeder(traffic(SEED, seconds=60, connections_per_s=300).events(), self.directory) as feeder:
            feed_for(feeder, 5)
            self.write("live.yaml", pipeline(window="6s"))
            self.process.send_signal(signal.SIGHUP)
            wait_for("the source to end", lambda: not (self.directory / "more.socket").exists(), pause_s=0.001)
            self.stop()
        self.assertNotIn("are lost", self.log.read_text())
        self.assertNotIn("got through within", self.log.read_text())

    def test_a_change_that_fails_gives_the_sources_back(self):
        """The sources have changed already when a new sink fails: all is as it was."""
        self.write("features.yaml", FEATURES)
        before = pipeline(nodes=NODES)
        self.write("live.yaml", before)
        self.begin()
        with Feeder(traffic(SEED, seconds=60).events(), self.directory) as feeder:
            feed_for(feeder, 2)
            self.write("data/spool/confirmed/damaged.json", "{")
            after = pipeline(nodes=NODES + FAILING).replace("lateness: 1000ms", "lateness: 1000ms, max_line: 70000")
            self.assertEqual(after.count("max_line"), 2)
            last = self.reload(after, REFUSED)
            self.assertIn("damaged.json", last["message"])
            feed_for(feeder, 1)
            # And a good one still goes through.
            self.reload(before.replace("window: 3s", "window: 6s"), APPLIED)
            feed_for(feeder, 1)
        self.await_requests(feeder.ids(REQUEST))
        self.await_windows()
        self.stop()
        self.assert_rows(feeder, {stream: set(self.exported(stream)) for stream in SOCKETS})
        self.assert_windows()

    def test_a_longer_window_finds_older_hellos(self):
        """The hello is long past the old window when the new one comes; the spool has it."""
        self.write("live.yaml", pipeline(window="1s"))
        self.begin()
        self.send(HELLO, "hello")
        sent = time.time_ns()
        wait_for("the window to pass", lambda: time.time_ns() > sent + 2 * SECOND)
        self.send(REQUEST, "before")
        self.await_requests({"before"})
        self.reload(pipeline(window="30s"), APPLIED)
        self.send(REQUEST, "after")
        self.await_requests({"after"})
        rows = dict(self.rows())
        self.assertEqual(rows["before"], (None, 0))
        self.assertEqual(rows["after"][0], "hello")

    def test_a_refused_file_says_where_and_changes_nothing(self):
        """Line, column and name in the status and in the log; rows go on."""
        self.write("live.yaml", pipeline())
        self.begin()
        last = self.reload(pipeline().replace("keepalive_ttl", "keepalive_tl"), REFUSED)
        self.assertIn("keepalive_tl", last["message"])
        self.assertRegex(last["message"], r"live\.yaml:\d+:\d+")
        self.assertLess(abs(last["at_ms"] / 1000 - time.time()), 60)
        self.assertIn("keepalive_tl", self.log.read_text())
        self.send(REQUEST, "after")
        self.await_requests({"after"})

    def test_a_source_that_cannot_be_opened_is_refused_and_the_old_one_goes_on(self):
        """A folder that is missing, seen before anything ends; a socket that another program has, seen when it is opened."""
        self.write("live.yaml", pipeline())
        self.begin()
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(taken.close)
        taken.bind(str(self.directory / "taken.socket"))
        for nth, path in enumerate(("nowhere/requests.socket", "taken.socket")):
            with self.subTest(path):
                last = self.reload(pipeline().replace(SOCKETS[REQUEST], path), REFUSED)
                self.assertIn("requests", last["message"])
                self.assertIn(path, last["message"])
                wait_for("the sockets", self.receives)
                self.send(REQUEST, f"after-{nth}")
                self.await_requests({f"after-{nth}"})
        # A source more that cannot be opened, beside those that are not touched.
        more = "  - { id: more, kind: source.unix_socket, path: taken.socket, format: reqin_log }\n" \
               "  - { id: more_file, kind: sink.jsonl, from: more, path: data/more.jsonl }\n"
        self.reload(pipeline(nodes=more), REFUSED)
        self.send(REQUEST, "last")
        self.await_requests({"last"})
        # And the same file is good once nobody has the socket.
        taken.close()
        self.reload(f"# again\n{pipeline(nodes=more)}", APPLIED)
        self.stop()
        self.assert_same_rows([name for name, _ in self.rows()], {"after-0", "after-1", "last"})

    def send(self, stream: str, name: str) -> None:
        """A row of one connection, now."""
        row = {"timestamp": time.time_ns(), "src_ip": "198.18.0.1", "src_port": 40_000}
        row |= {"conn_id": name, "ja4": "t13d"} if stream == HELLO else {"header_X-Request-Id": name}
        with connected(self.directory / SOCKETS[stream]) as opened:
            opened.send(json.dumps(row).encode())


class DurableReload(Reload):
    """The same with a log between the join and what reads it: a change on one side leaves the other running."""

    def write(self, name: str, text: str) -> Path:
        """Writes a file; the join of a pipeline is durable."""
        return super().write(name, text.replace("kind: correlate,", "kind: correlate, durable: true,"))

    def test_what_is_unchanged_keeps_running(self):
        """Other features leave the join alone, and another window of the join what reads it."""
        self.write("features.yaml", FEATURES)
        version = Version()
        self.write("live.yaml", version.text())
        self.begin()
        with Feeder(traffic(SEED, seconds=60).events(), self.directory) as feeder:
            feed_for(feeder, 2)
            behind = "features, some, features_file"
            for kind, rebuilt in (("features", behind), ("window", "correlated"), ("behind", behind)):
                last = self.reload(*version.change(kind))
                self.assertRegex(last["message"], f"^{rebuilt} rebuilt, from tick")
                feed_for(feeder, 1)
        self.await_requests(feeder.ids(REQUEST))
        self.await_windows()
        self.assert_live()
        self.stop()
        self.assert_rows(feeder, {stream: feeder.ids(stream) for stream in SOCKETS})
        self.assert_windows()


def total(reloads: dict) -> int:
    """How many reloads there were."""
    return sum(reloads[outcome] for outcome in OUTCOMES)
