"""`data_dir` that is moved, removed, hidden or read-only while the engine runs: rows wait, the status says why, and it goes on."""

import json
import os
import shutil
import subprocess
import time

from tests.feeder import Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.support import get, wait_for
from tests.traffic import REQUEST

STORE = "  - { id: store, kind: sink.parquet, from: { requests: correlated }, rotate: 1s }\n" \
        "  - { id: beside, kind: sink.jsonl, from: correlated, path: beside.jsonl }\n"


class Store(LiveCase):
    """An engine under load whose folder is taken away."""

    def setUp(self) -> None:
        super().setUp()
        self.write("live.yaml", pipeline(nodes=STORE))
        self.begin()

    def troubles(self) -> dict[str, str]:
        """What `GET /status` says of `data_dir`, by node."""
        nodes = json.loads(get(f"{self.base}/status")[1])["nodes"]
        return {node["id"]: node["troubles"]["data_dir"] for node in nodes if "data_dir" in node.get("troubles", {})}

    def await_trouble(self, *says: str) -> None:
        """Until the folder is known to be away; sources and the store of tables say it, and so do metrics and `status`."""
        wait_for("the trouble", self.troubles)
        found = self.troubles()
        self.assertLessEqual({"hellos", "requests", "store"}, set(found))
        for text in says:
            self.assertIn(text, found["store"])
        self.assertGreater(self.metric(r"trouble.*part=\"data_dir\""), 0)
        run = self.engine("status", "--url", self.base)
        self.assertIn("data_dir", run.stdout + run.stderr)

    def names(self, path) -> list[str]:
        """The requests in a file of rows."""
        text = path.read_text() if path.exists() else ""
        rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [row["header_x_request_id"] for row in rows]

    def taken_away(self, seed: int, away, back, says: str) -> tuple[set[str], set[str]]:
        """Rows before, while it is away, and after it is back: all of these, and those of the last two."""
        with Feeder(traffic(seed, seconds=60, connections_per_s=100).events(), self.directory) as feeder:
            feed_for(feeder, 2)
            away()
            self.await_trouble(says)
            begin = time.time_ns()
            feed_for(feeder, 1)
            self.assertIsNone(self.process.poll(), self.log.read_text())
            self.assertTrue(feeder.ids(REQUEST, begin), "sources go on for as long as memory allows")
            back()
            wait_for("no trouble", lambda: not self.troubles())
            feed_for(feeder, 1)
        return feeder.ids(REQUEST), feeder.ids(REQUEST, begin)

    def assert_complete(self, ids: set[str]) -> None:
        """Each row once in the file beside the folder, after a stop and a start too."""
        beside = self.directory / "beside.jsonl"
        wait_for("all rows", lambda: set(self.names(beside)) | set(self.late()[REQUEST]) >= ids)
        self.stop()
        found = self.names(beside)
        self.assertEqual(len(found), len(set(found)), "a row is there twice")
        self.begin()
        self.stop()
        self.assertEqual(self.names(beside)[: len(found)], found)

    def test_moved_away_and_back(self):
        """Nothing is lost, nothing is doubled, in any output."""
        elsewhere = self.directory / "elsewhere"
        ids, _ = self.taken_away(61, lambda: self.data.rename(elsewhere), lambda: elsewhere.rename(self.data), "is gone")
        self.await_requests(ids)
        self.assert_complete(ids)
        rows = [name for name, _ in self.rows()]
        self.assert_same_rows(rows, set(rows))
        self.assert_same_rows([name for (name,) in self.parquet("header_x_request_id")], rows)

    def test_removed_and_made_again(self):
        """What was in it is gone; what came since is in the new one, and nothing is lost outside of it."""
        ids, since = self.taken_away(62, lambda: shutil.rmtree(self.data), self.data.mkdir, "is gone")
        wait_for("rows in the new folder",
                 lambda: since <= {name for name, _ in self.rows()} | set(self.late()[REQUEST]))
        self.assert_complete(ids)
        self.assertIn("is back, empty", self.logs())

    def test_another_folder_in_its_place(self):
        """It is not written to while the first one is still somewhere."""
        elsewhere = self.directory / "elsewhere"

        def away() -> None:
            self.data.rename(elsewhere)
            self.data.mkdir()

        def back() -> None:
            self.assertEqual(os.listdir(self.data), [])
            self.data.rmdir()
            elsewhere.rename(self.data)

        ids, _ = self.taken_away(63, away, back, "another folder")
        self.await_requests(ids)
        self.assert_complete(ids)


class Mounted(Store):
    """What a mount does to it."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("needs root to mount a tmpfs")
        super().setUp()

    def mount(self, *options: object) -> None:
        """Over the folder."""
        mounted = subprocess.run(["mount", *map(str, options), self.data], capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"this cannot be mounted here: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", self.data], check=False, capture_output=True)

    def unmount(self) -> None:
        """What was mounted last."""
        subprocess.run(["umount", self.data], check=True)

    def test_hidden_by_another_file_system(self):
        """As when a disk is mounted there."""
        ids, _ = self.taken_away(64, lambda: self.mount("-t", "tmpfs", "tmpfs"), self.unmount, "another folder")
        self.await_requests(ids)
        self.assert_complete(ids)

    def test_read_only_and_back(self):
        """The same folder, mounted again so that nothing can be written there. (A file system with a file that is open for writing
        cannot be made read-only from outside.)
        """
        def away() -> None:
            self.mount("--bind", self.data)
            self.mount("-o", "remount,bind,ro")

        ids, _ = self.taken_away(65, away, self.unmount, "Read-only file system")
        self.await_requests(ids)
        self.assert_complete(ids)

    # The others are of the class before.
    test_moved_away_and_back = test_removed_and_made_again = test_another_folder_in_its_place = None

