"""The overview page in a real browser, after the demo's run: it draws, and the console stays silent."""

import html
import re
import shutil
import subprocess
import unittest

from tests.support import PIPELINES, Case, running, served, sql, wait_for

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@unittest.skipUnless(BROWSER, "no Chromium is installed")
class Page(Case):
    """`run --serve` on the demo."""

    def setUp(self) -> None:
        super().setUp()
        self.log = self.directory / "log"
        # A path with `..` in it, as in the pipeline's own default.
        variables = {"DATA_DIR": self.directory / "elsewhere/../data"}
        (self.directory / "elsewhere").mkdir()
        self.process = self.enterContext(running("run", "--serve", "--listen", "127.0.0.1:0", PIPELINES / "demo.yaml",
                                                 environment=variables, log=self.log))
        self.base = served(self.log)
        wait_for("the run's end", lambda: "all sources have ended" in self.log.read_text())

    def browse(self, path: str) -> tuple[str, str]:
        """The document as the browser leaves it, and what its console and its network said."""
        done = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update",
             f"--user-data-dir={self.directory / 'profile'}", "--enable-logging=stderr", "--window-size=1400,1000",
             "--virtual-time-budget=10000", "--dump-dom", f"{self.base}{path}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=True,
        )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, "\n".join(console)

    def test_the_overview_shows_the_run(self):
        """Numbers, fingerprints and detections with their reasons; nothing in the console."""
        document, console = self.browse("/")
        self.assertIsNone(self.process.poll(), self.log.read_text())
        self.assertEqual(console, "")
        text = html.unescape(re.sub(r"<[^>]*>", " ", document))
        for row in sql(self.base, "select src_ip, reason from detections where threat_level in ('CRITICAL', 'HIGH')"):
            self.assertIn(row["src_ip"], text)
            self.assertIn(row["reason"], text)
        top = sql(self.base, "select ja4 from requests where ja4 is not null group by ja4 order by count(*) desc limit 1")
        self.assertIn(top[0]["ja4"], text)
        self.assertIn("<canvas", document)

    def test_nothing_is_loaded_from_elsewhere(self):
        """The policy forbids it, and the page does not ask for it."""
        document, _ = self.browse("/")
        addresses = re.findall(r"""(?:src|href)=["']([^"'#]+)""", document)
        self.assertTrue(addresses)
        self.assertFalse([a for a in addresses if "//" in a and not a.startswith(self.base)])
