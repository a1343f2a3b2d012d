"""kill -9 at random moments under load: what was accepted is in every sink exactly once, as if nothing had happened.

KILLS says how often, SEED repeats a run; it is printed.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.feeder import Feeder, Sent
from tests.live_engine import SOCKETS, LiveCase, feed_for, pipeline, traffic
from tests.support import OK, wait_for
from tests.traffic import REQUEST

KILLS = int(os.environ.get("KILLS", 12))
STOPS = min(KILLS, 3)
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
BETWEEN_S = (0.2, 1.5)

NODES = """\
  - { id: features, kind: aggregate, from: correlated, by: [host, src_ip], window: 2s,
      features: [{ name: hits, expr: count(*) }] }
  - { id: features_file, kind: sink.jsonl, from: features, path: data/features.jsonl }
  - { id: store, kind: sink.parquet, from: { requests: correlated }, rotate: 2s }
"""

# What a kill can take, of each source: what the kernel has queued, what the engine's thread is gathering, and what is
# received and not yet committed, for which twenty commit intervals are allowed, because a sync may take long on a busy
# machine. An orderly stop takes nothing: a row is refused, or it is in the spool.
QUEUED = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1
GATHERED_BYTES = 64 << 10
UNCOMMITTED_NS = 20 * 50_000_000


class Kill(LiveCase):
    """Two sockets, correlate, windows; JSON lines and Parquet."""

    def setUp(self) -> None:
        super().setUp()
        self.write("live.yaml", pipeline(nodes=NODES, tables=", features: features"))

    def test_what_was_accepted_is_in_every_sink_exactly_once(self):
        """Rows, join and windows as the spool has them; only what was not accepted is missing, around the kills."""
        print(f"\n    {KILLS} kills, SEED={SEED} ", end="", flush=True)
        self.through(KILLS, self.kill)
        self.assertGreater(len(self.rows()), 100 * KILLS)

    def test_an_orderly_stop_changes_nothing(self):
        """SIGTERM under load: windows stay open until the next start; what was received is not lost."""
        print(f"\n    {STOPS} stops, SEED={SEED} ", end="", flush=True)
        self.through(STOPS, self.stop)

    def through(self, count: int, interrupt: Callable[[], None]) -> None:
        """Interrupts the engine that often under load, and looks at all that it leaves after a calm end."""
        rng = random.Random(SEED)
        interruptions = []
        # More than is needed: the feeder is ended before.
        events = traffic(SEED, count * 4 + 60, connections_per_s=150).events()
        with Feeder(events, self.directory) as feeder:
            for _ in range(count):
                # A kill may hit the start, too; an orderly stop is asked of an engine that runs.
                self.begin(wait=interrupt == self.stop)
                end = time.monotonic() + rng.uniform(*BETWEEN_S)
                wait_for("the moment", lambda: time.monotonic() > end, pause_s=0.005)
                self.assertIsNone(self.process.poll(), f"the engine ended by itself:\n{self.log.read_text()}")
                before = time.time_ns()
                interrupt()
                interruptions.append((before, time.time_ns()))
            self.begin()
            since = feed_for(feeder, 2)
        self.await_requests(feeder.ids(REQUEST, since=since))
        self.await_windows()
        self.await_parquet()
        self.stop()
        spooled = {stream: self.exported(stream) for stream in SOCKETS}
        self.assert_rows(feeder.sent, spooled)
        self.assert_windows()
        for stream, ids in spooled.items():
            sent = [one for one in feeder.sent if one.stream == stream]
            kept = set(ids)
            if interrupt == self.stop:
                self.assertEqual([one for one in sent if one.id not in kept], [])
            else:
                self.assert_losses(sent, kept, interruptions)

    def await_parquet(self) -> None:
        """Waits until every row is in a file: idle sources let time pass."""
        rows = len({name for name, _ in self.rows()})
        wait_for("the last Parquet file", lambda: len(self.parquet("header_x_request_id")) >= rows, pause_s=0.5)

    def assert_rows(self, sent: list[Sent], spooled: dict[str, list[str]]) -> None:
        """Each request of the spool once, in both sinks, with the oracle's hello."""
        for stream, ids in spooled.items():
            twice = [name for name, count in Counter(ids).items() if count > 1]
            self.assertEqual(twice, [], f"the spool has rows of {stream} twice")
        rows, late = self.rows(), self.late()
        self.assert_same_rows([name for name, _ in rows] + late[REQUEST], spooled[REQUEST], self.logs()[-2000:])
        expected = self.oracle(sent, {stream: set(ids) for stream, ids in spooled.items()})
        self.assert_same_rows(rows, expected.items())
        stored = self.parquet("header_x_request_id, conn_id, keepalives")
        self.assert_same_rows(((name, (hello, number)) for name, hello, number in stored), rows)
        print(f"{len(rows)} rows, {sum(hello is None for _, (hello, _) in rows)} without a hello, "
              f"{len(late[REQUEST])} late ", end="")
        self.assertLess(len(late[REQUEST]), len(rows) // 20)

    def assert_losses(self, sent: list[Sent], spooled: set[str], interruptions: list[tuple[int, int]]) -> None:
        """What was sent and is not in the spool was sent just before an interruption, and is no more than the bound."""
        stream = sent[0].stream
        gathered = GATHERED_BYTES // min(len(json.dumps(one.row)) for one in sent)
        most = bound = 0
        gaps = list(runs(sent, spooled))
        for lost, then in gaps:
            last = lost[-1].at
            self.assertTrue(any(last <= after and before <= then for before, after in interruptions),
                            f"{len(lost)} rows of {stream} are lost, and nothing was interrupted; the last is {lost[-1]}")
            uncommitted = sum(last - UNCOMMITTED_NS <= one.at <= last for one in sent)
            if len(lost) > most:
                most, bound = len(lost), QUEUED + gathered + uncommitted
            self.assertLessEqual(len(lost), QUEUED + gathered + uncommitted)
        print(f"\n    {stream}: {sum(len(lost) for lost, _ in gaps)} of {len(sent)} rows lost by {len(gaps)} of "
              f"{len(interruptions)}, at most {most} (bound there {bound}) ", end="")


class DurableKill(Kill):
    """The same with a log between the join and all that reads it: the rows of the join are kept, and not made again."""

    def setUp(self) -> None:
        super().setUp()
        text = pipeline(nodes=NODES, tables=", features: features")
        durable = text.replace("kind: correlate,", "kind: correlate, durable: true,")
        self.assertNotEqual(durable, text)
        self.write("live.yaml", durable)

    def through(self, count: int, interrupt: Callable[[], None]) -> None:
        """Interruptions, and what the log of the join has in the end: each row once."""
        super().through(count, interrupt)
        run = self.engine("spool", "export", self.data / "spool", "correlated")
        self.assert_exit(run, OK)
        kept = [json.loads(line)["header_x_request_id"] for line in run.stdout.splitlines()]
        self.assert_same_rows(kept, [name for name, _ in self.rows()])


def runs(sent: list[Sent], spooled: set[str]) -> Iterator[tuple[list[Sent], int]]:
    """Rows in a row that the spool does not have, and when the next one was sent that it has."""
    lost: list[Sent] = []
    for one in sent:
        if one.id not in spooled:
            lost.append(one)
        elif lost:
            yield lost, one.at
            lost = []
    if lost:
        yield lost, lost[-1].at
