"""What sink.clickhouse does with what the server refuses: rows, a table, a view behind it, who asks."""

import unittest

from tests.clickhouse.proxy import Proxy
from tests.clickhouse.server import PYTHON, SECRETS, Server, ask, engine, migrate, schema, shared
from tests.clickhouse.sink import SinkCase
from tests.support import FAILED, OK, get, wait_for

# Of so many rows every seventh has the path that a constraint forbids.
ROWS, BAD = 70, 10


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Refused(SinkCase):
    """Rows of a file in ClickHouse, some of which it does not take."""

    def proxy(self, url: str, **options: object) -> Proxy:
        proxy = Proxy(url, **options)
        self.addCleanup(proxy.close)
        return proxy

    def forbid(self, url: str, database: str) -> None:
        ask(url, f"ALTER TABLE {database}.http_logs ADD CONSTRAINT IF NOT EXISTS no_five CHECK path != '/5'")

    def allow(self, url: str, database: str) -> None:
        ask(url, f"ALTER TABLE {database}.http_logs DROP CONSTRAINT IF EXISTS no_five")

    def good(self, prefix: str) -> list[str]:
        return [f"{prefix}-{nth}" for nth in range(ROWS) if nth % 7 != 5]

    def begin_stuck(self, proxy: Proxy, path):
        """Starts with inserts that do not get through: the table has been looked at, and no row is in it."""
        proxy.allowed = 0
        return self.run_of(path)

    def test_only_the_rows_that_are_refused_are_put_away(self):
        url = shared()
        database = schema(url, "refused_rows")
        self.forbid(url, database)
        self.requests("b", ROWS, step_ns=1000)
        run = self.engine("run", self.pipeline(url, database))
        self.assert_exit(run, OK, "no_five", f"dead_letter_rows {BAD}", f"sent_rows {ROWS - BAD}")
        self.assert_same_rows(self.ids(url, database, "b"), self.good("b"))
        self.assertEqual(len(self.letters), BAD)
        self.assertEqual([file.with_suffix(".reason").exists() for file in self.letters], [True] * BAD)
        # The views behind the table have each row once.
        self.assertEqual(ask(url, f"SELECT sum(hits) FROM {database}.agg_host_ip_ja4_1h"), [[str(ROWS - BAD)]])
        # Sent in vain, then once the table takes them, then once more.
        self.assertNotEqual(self.send_again(self.letters[0]).returncode, 0)
        self.allow(url, database)
        for letter in self.letters * 2:
            sent = self.send_again(letter)
            self.assertEqual(sent.returncode, 0, sent.stderr)
        self.assert_once(url, database, "b", ROWS, "")

    def test_an_insert_that_is_taken_apart_and_repeated_after_a_crash_is_there_once(self):
        """The engine is killed after so many inserts; then the table takes everything, also an insert as a whole."""
        url = shared()
        for nth, inserts in enumerate((3, 17, 21, 30, 45, 60)):
            with self.subTest(inserts=inserts):
                prefix = f"c{nth}"
                database = schema(url, "taken_apart")
                self.forbid(url, database)
                self.requests(prefix, ROWS, step_ns=1000)
                proxy = self.proxy(url)
                proxy.allowed = inserts
                path = self.pipeline(proxy.url, database)
                with self.run_of(path) as run:
                    wait_for("the inserts", lambda: proxy.counts["refuse"])  # noqa: B023
                    run.process.kill()
                    run.process.wait()
                stored = set(self.ids(url, database, prefix))
                letters = self.letters
                self.assertLess(len(stored), ROWS - BAD)
                self.allow(url, database)
                proxy.allowed = None
                self.assert_exit(self.engine("run", "--quiet", path), OK)
                self.assert_once(url, database, prefix, ROWS, f"{len(stored)} rows and {len(letters)} letters before the crash")
                # What was put away before is in the table now, and sending it again adds nothing.
                for letter in letters:
                    self.assertEqual(self.send_again(letter).returncode, 0)
                self.assert_once(url, database, prefix, ROWS, f"{len(letters)} letters")
                for file in letters:
                    file.unlink()

    def test_lost_answers_while_an_insert_is_taken_apart_double_nothing(self):
        url = shared()
        database = schema(url, "apart_faults")
        self.forbid(url, database)
        for nth in range(4):
            with self.subTest(seed=nth):
                self.requests(f"f{nth}", ROWS, step_ns=1000)
                proxy = self.proxy(url, seed=nth, share=0.5, most=20, faults=("cut_before", "cut_after", "exception_after"))
                self.assert_exit(self.engine("run", "--quiet", self.pipeline(proxy.url, database, max_rows=20)), OK)
                self.assert_same_rows(self.ids(url, database, f"f{nth}"), self.good(f"f{nth}"))

    def test_rows_are_held_while_the_table_does_not_fit_or_a_view_fails(self):
        url = shared()
        database = schema(url, "held")
        table = f"{database}.http_logs"
        ask(url, f"CREATE TABLE IF NOT EXISTS {database}.short (path FixedString(1)) ENGINE = MergeTree ORDER BY tuple()")
        view = f"CREATE MATERIALIZED VIEW {database}.mv_short TO {database}.short AS SELECT CAST(path AS FixedString(1)) AS path FROM {table}"
        column = ask(url, f"SELECT type FROM system.columns WHERE database = '{database}' AND table = 'http_logs' AND name = 'header_referer'")[0][0]
        other = [f"ALTER TABLE {table} DROP COLUMN header_referer", f"ALTER TABLE {table} ADD COLUMN header_referer UInt8"]
        faults = (
            (other[:1], "header_referer", [f"ALTER TABLE {table} ADD COLUMN header_referer {column}"]),
            (other, "`header_referer` as UInt8, needed: String", [f"ALTER TABLE {table} MODIFY COLUMN header_referer {column}"]),
            ([view], "while pushing to view", [f"DROP TABLE {database}.mv_short"]),
        )
        referer = "  - { id: referred, kind: derive, from: requests, columns: [{ name: header_referer, expr: path }] }"
        for nth, (fault, says, mended) in enumerate(faults):
            with self.subTest(says=says):
                self.requests(f"h{nth}", ROWS, step_ns=1000)
                proxy = self.proxy(url)
                with self.begin_stuck(proxy, self.pipeline(proxy.url, database, nodes=referer, source="referred")) as run:
                    wait_for("an insert", lambda: proxy.counts["refuse"])  # noqa: B023
                    for sql in fault:
                        ask(url, sql)
                    proxy.allowed = None
                    run.await_trouble(says)
                    self.assertEqual(run.sink()["values"]["retried_rows"], ROWS)
                    self.assertIn("not confirmed, sent again", run.log.read_text())
                    for sql in mended:
                        ask(url, sql)
                    self.assertIn("takes rows again", run.end())
                self.assertEqual(self.letters, [])
                self.assert_once(url, database, f"h{nth}", ROWS, says)

    def test_rows_are_held_when_the_dead_letters_are_full(self):
        url = shared()
        database = schema(url, "full")
        self.forbid(url, database)
        self.requests("l", ROWS, step_ns=1000)
        with self.run_of(self.pipeline(url, database, options=", max_dead_letter_bytes: 35000")) as run:
            run.await_trouble("is full")
            status = self.engine("status", "--url", run.base)
            self.assert_exit(status, OK)
            self.assertRegex(status.stdout, r"http_logs: not confirmed, sent again: .* is full")
            first = self.letters
            self.assertTrue(0 < len(first) < BAD, first)
            size = sum(file.stat().st_size for file in first[0].parent.iterdir())
            self.assertTrue(0 < size <= 35000, size)
            self.assertEqual(run.sink()["values"]["dead_letter_bytes"], size)
            # Room is made: what was put away is removed, and some more takes its place.
            for file in first:
                file.with_suffix(".reason").unlink()
                file.unlink()
            wait_for("other letters", lambda: self.letters and set(self.letters).isdisjoint(first))
            run.await_trouble("is full")
            put_away = run.sink()["events"]["dead_letter_rows"]
            self.allow(url, database)
            run.end()
        self.assertEqual(len(self.ids(url, database, "l")), ROWS - put_away)

    def test_a_letter_is_sent_with_user_and_password_of_which_it_has_no_word(self):
        server = Server(user="it's me", password='s3"cr\'e\\t $x')
        self.addCleanup(server.close)
        credentials = {"user": server.user, "password": server.password}
        secret = self.write("password", server.password)
        with_user = ("--url", server.url, "--user", server.user, "--password-file", secret, "--database", "secret")
        self.assert_exit(engine("migrate", "up", "--skip-unsupported", *SECRETS, *with_user), OK)
        ask(server.url, "ALTER TABLE secret.http_logs REMOVE TTL", **credentials)
        ask(server.url, "ALTER TABLE secret.http_logs ADD CONSTRAINT no_five CHECK path != '/5'", **credentials)
        self.requests("s", 14, step_ns=1000)
        options = ", user: \"it's me\", password: \"${SECRET}\""
        path = self.pipeline(server.url, "secret", options=options)
        self.assert_exit(self.engine("run", "--quiet", path, environment={"SECRET": server.password}), OK)
        ask(server.url, "ALTER TABLE secret.http_logs DROP CONSTRAINT no_five", **credentials)
        self.assertEqual(len(self.letters), 2)
        for letter in self.letters:
            self.assertNotIn("s3", letter.with_suffix(".reason").read_text())
            self.assertIn("CLICKHOUSE_PASSWORD", self.send_again(letter).stderr)
            sent = self.send_again(letter, CLICKHOUSE_PASSWORD=server.password)
            self.assertEqual(sent.returncode, 0, sent.stderr)
        self.assert_same_rows(self.ids(server.url, "secret", "s", **credentials), [f"s-{nth}" for nth in range(14)])

    def test_a_server_that_lets_nobody_in_ends_the_run_at_its_start(self):
        url = shared()
        database = schema(url, "denied")
        self.requests("w", ROWS)
        for wrong in ("http://me:s3cret@", "http://nobody@"):
            run = self.engine("run", "--quiet", self.pipeline(url.replace("http://", wrong), database))
            self.assert_exit(run, FAILED, f"ClickHouse at {url} refuses access to {database}.http_logs", "authentication failed")
            self.assertNotIn("s3cret", run.stdout + run.stderr)

    def test_a_user_who_may_read_and_not_write_ends_the_run_at_its_start(self):
        url = shared()
        database = schema(url, "read_only")
        self.requests("r", ROWS)
        proxy = self.proxy(url)
        proxy.read_only = True
        path = self.pipeline(proxy.url, database)
        self.assert_exit(self.engine("validate", "--connect", path), FAILED, "Not enough privileges")
        self.assert_exit(self.engine("run", "--quiet", path), FAILED, f"refuses access to {database}.http_logs", "Not enough privileges")
        proxy.read_only = False
        self.assert_exit(self.engine("run", "--quiet", path), OK)
        self.assert_once(url, database, "r", ROWS, "")

    def test_a_server_that_lets_nobody_in_for_a_while_is_waited_for(self):
        url = shared()
        database = schema(url, "denied_later")
        # Away for longer than the start lasts, then with other users; and with other users between two inserts.
        for prefix, before in (("x", "down"), ("y", "allowed")):
            with self.subTest(before=before):
                self.requests(prefix, ROWS)
                proxy = self.proxy(url)
                (proxy.down, proxy.allowed) = (before == "down", 0 if before == "allowed" else None)
                with self.run_of(self.pipeline(proxy.url, database, timeout="300ms")) as run:
                    wait_for("attempts", lambda: run.sink()["events"].get("retries", 0) > 6)  # noqa: B023
                    (proxy.denied, proxy.down, proxy.allowed) = (True, False, None)
                    run.await_trouble("AUTHENTICATION_FAILED")
                    self.assertIsNone(run.process.poll())
                    self.assertEqual(get(f"{run.base}/health")[0], 200)
                    proxy.denied = False
                    run.end()
                self.assert_once(url, database, prefix, ROWS, before)
