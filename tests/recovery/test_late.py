"""kill -9 while rows come late: a sink of late rows has each of them once."""

import json
import random
import time

from tests.feeder import SOCKETS, connected
from tests.live_engine import LiveCase, pipeline
from tests.support import wait_for
from tests.traffic import REQUEST, SECOND

SEED = 20_261_128
KILLS = 5
LATE = 10 * SECOND


class Late(LiveCase):
    """Two sockets and the join, whose late rows have a file."""

    def test_a_late_row_is_written_once(self):
        """It leaves the join at the time at which it came, also when it is read again: the sink knows that it has it."""
        rng = random.Random(SEED)
        self.write("live.yaml", pipeline())
        sent = 0
        for kill in range(KILLS + 1):
            self.begin()
            with connected(self.directory / SOCKETS[REQUEST]) as opened:
                for _ in range(60):
                    late = sent % 5 == 4
                    row = {"timestamp": time.time_ns() - late * LATE, "src_ip": "198.18.0.1", "src_port": 40_000,
                           "header_X-Request-Id": f"{'late' if late else 'good'}-{sent}"}
                    opened.send(json.dumps(row).encode())
                    sent += 1
                    due = time.monotonic() + rng.uniform(0.005, 0.03)
                    wait_for("the next row", lambda due=due: time.monotonic() > due, pause_s=0.002)
            if kill < KILLS:
                self.kill()
        last = f"good-{sent - 2}"
        wait_for("the last row", lambda: last in dict(self.rows()))
        self.stop()
        kept = self.exported(REQUEST)
        self.assertGreater(len(kept), sent * 0.8)
        self.assert_same_rows(self.late()[REQUEST], [name for name in kept if name.startswith("late")])
        self.assert_same_rows([name for name, _ in self.rows()], [name for name in kept if name.startswith("good")])
