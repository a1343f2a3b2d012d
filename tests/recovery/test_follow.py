"""kill -9 while files are followed: they are their own log, so that not a single line may be missing."""

import random
import time

from tests.feeder import SOCKETS, Writer
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.recovery.test_kill import BETWEEN_S, KILLS, SEED
from tests.support import wait_for
from tests.traffic import REQUEST


class Follow(LiveCase):
    """Two growing files, correlate, JSON lines."""

    def receives(self) -> bool:
        """A file needs nobody who listens."""
        self.assertIsNone(self.process.poll(), f"the engine has ended:\n{self.log.read_text()}")
        return True

    def test_every_line_comes_out_once(self):
        """Also those that were written while nobody read."""
        kills = max(KILLS // 3, 1)
        print(f"\n    {kills} kills, SEED={SEED} ", end="", flush=True)
        rng = random.Random(SEED)
        self.write("live.yaml", pipeline(follow=True))
        with Writer(traffic(SEED, kills * 4 + 60, connections_per_s=100).events(), self.directory) as writer:
            for _ in range(kills):
                self.begin(wait=False)
                end = time.monotonic() + rng.uniform(*BETWEEN_S)
                wait_for("the moment", lambda: time.monotonic() > end, pause_s=0.005)
                self.kill()
            self.begin()
            feed_for(writer, 2)
        self.await_requests(writer.ids(REQUEST))
        self.stop()
        rows, late = self.rows(), self.late()[REQUEST]
        self.assert_same_rows([name for name, _ in rows] + late, writer.ids(REQUEST), self.logs()[-2000:])
        sent = {stream: writer.ids(stream) for stream in SOCKETS}
        self.assert_same_rows(rows, self.oracle(writer.sent, sent).items())
        print(f"{len(rows)} rows, {len(late)} late ", end="")
