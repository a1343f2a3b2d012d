"""Clocks that step, a time far in the future, and a source where nothing comes: time goes on for all others."""

import time

from tests.feeder import SOCKETS, connected
from tests.live_engine import LiveCase, pipeline
from tests.support import wait_for
from tests.traffic import REQUEST, SECOND

HOUR = 3600 * SECOND
YEAR_2100 = 4_102_444_800 * SECOND
LIMIT_S = 2.0
REJECTED = "  - { id: rejected_file, kind: sink.jsonl, from: requests.rejected, path: data/rejected.jsonl }\n"


class Clocks(LiveCase):
    """Requests alone: the hellos' socket is there, and nothing comes."""

    def setUp(self) -> None:
        super().setUp()
        self.write("live.yaml", pipeline(nodes=REJECTED, lateness="500ms"))
        self.begin()
        self.socket = connected(self.directory / SOCKETS[REQUEST])
        self.addCleanup(self.socket.close)

    def send(self, name: str, ahead: int = 0, count: int = 5) -> set[str]:
        """Requests whose times are ahead of the clock by so many ns; their ids."""
        ids = {f"{name}-{number}" for number in range(count)}
        for one in ids:
            self.socket.send(
                f'{{"timestamp":{time.time_ns() + ahead},"src_ip":"198.18.0.1","src_port":40000,"host":"www.example.test",'
                f'"http_version":"HTTP/2.0","header_X-Request-Id":"{one}"}}'.encode()
            )
        return ids

    def on_time(self) -> set[str]:
        """Ids that came out on time."""
        return {name for name, _ in self.rows()}

    def await_on_time(self, ids: set[str]) -> float:
        """Waits for rows; how long that took, in seconds."""
        begin = time.monotonic()
        wait_for(f"rows that are on time, such as {min(ids)}", lambda: ids <= self.on_time(), limit_s=20)
        return time.monotonic() - begin

    def assert_rejected(self, ids: set[str]) -> None:
        """Waits until rows are refused, each with a reason."""
        def reasons() -> dict[str, str]:
            return {one: row["reason"] for row in self.output("rejected.jsonl") for one in ids if f'"{one}"' in row["line"]}
        wait_for("refused rows", lambda: reasons().keys() == ids, limit_s=20)
        for reason in reasons().values():
            self.assertIn("ahead", reason)

    def test_a_time_in_the_future_is_refused_and_poisons_nothing(self):
        """In 2100, and an hour ahead."""
        self.await_on_time(self.send("before"))
        for name, ahead in (("century", YEAR_2100 - time.time_ns()), ("hour", HOUR)):
            with self.subTest(name):
                refused = self.send(name, ahead)
                following = self.send(f"after-{name}")
                self.assert_rejected(refused)
                self.assertLess(self.await_on_time(following), LIMIT_S)
        self.assertEqual(self.late()[REQUEST], [])

    def test_a_clock_that_steps_back_is_late_until_it_is_right_again(self):
        """By an hour; rows that were late are not lost but at `late`."""
        self.await_on_time(self.send("before"))
        late = self.send("behind", -HOUR)
        following = self.send("after")
        self.await_on_time(following)
        wait_for("late rows", lambda: set(self.late()[REQUEST]) == late)
        self.assertEqual(self.on_time() & late, set())

    def test_a_source_where_nothing_comes_stalls_nobody(self):
        """Requests come out while there has never been a hello."""
        delays = []
        for number in range(5):
            ids = self.send(f"alone-{number}", count=1)
            delays.append(self.await_on_time(ids))
        print(f"\n    rows came out {max(delays):.2f} s after they were sent at most ", end="")
        self.assertLess(max(delays), LIMIT_S)
