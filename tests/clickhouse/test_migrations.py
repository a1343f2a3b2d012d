"""The schema is applied twice, verified, rolled back and applied again."""

import os
import re
import unittest

from tests.clickhouse.proxy import Proxy, respond
from tests.clickhouse.server import PYTHON, SECRETS, ask, migrate, shared
from tests.support import FAILED, OK, REFUSED, ROOT, Case

# How many migrations there are.
ALL = len(list((ROOT / "migrations").glob("[0-9][0-9]_*.sql")))

FULL = """SELECT count() FROM system.tables WHERE database = '{}' AND name IN ('http_logs_raw', 'http_logs',
'agg_host_ip_ja4_1h', 'agg_header_fingerprint_1h', 'ml_detected_anomalies', 'ml_all_scores', 'ref_bot_networks', 'anubis_ua_rules',
'anubis_ip_rules', 'anubis_asn_rules', 'anubis_country_rules', 'audit_logs', 'bot_ip', 'bot_ja4')"""


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Migrations(Case):
    """`ja4-engine migrate`."""

    def test_up_twice_verify_down_and_up_again(self):
        url, name = shared(), "up_down"
        up = ("up", "--skip-unsupported", *SECRETS)
        for _ in range(2):
            self.assert_exit(migrate(url, name, *up), OK)
            self.assertIn("nothing to do", migrate(url, name, *up).stdout)
            self.assert_exit(migrate(url, name, "verify", *SECRETS), OK)
            self.assertEqual(ask(url, FULL.format(name)), [["14"]])
            self.assert_exit(migrate(url, name, "down"), REFUSED, "--yes does it")
            run = migrate(url, name, "down", "--to", "-1", "--yes")
            self.assert_exit(run, OK)
            order = [line[:2] for line in run.stdout.splitlines()]
            self.assertEqual(order, sorted(order, reverse=True))
            self.assertEqual(ask(url, f"SHOW DATABASES LIKE '{name}'"), [])

    def test_a_server_without_users_needs_the_flag(self):
        url, name = shared(), "flagless"
        self.addCleanup(migrate, url, name, "down", "--to", "-1", "--yes")
        try:
            ask(url, "CREATE USER IF NOT EXISTS ja4_test_probe IDENTIFIED WITH no_password")
            ask(url, "DROP USER IF EXISTS ja4_test_probe")
            has_users = True
        except AssertionError as error:
            self.assertIn("Code: 497", str(error))
            has_users = False
        run = migrate(url, name, "up", *SECRETS)
        if has_users:
            self.assert_exit(run, OK)
            self.assertNotIn("skipped", run.stdout)
        else:
            self.assert_exit(run, FAILED, "08_users", "--skip-unsupported")
            self.assertEqual(self.states(url, name), ["applied"] * 8 + ["pending"] * (ALL - 8))
        # With the flag there is nothing that does not work, and what has users loses none.
        run = migrate(url, name, "up", "--skip-unsupported", *SECRETS)
        self.assert_exit(run, OK)
        users = "applied" if has_users else "skipped"
        self.assertEqual(self.states(url, name), [users if number in (8, 13, 20) else "applied" for number in range(ALL)])
        self.assert_exit(migrate(url, name, "verify"), OK)

    def test_up_and_down_to_a_number_and_what_status_and_plan_say_of_it(self):
        url, name = shared(), "steps"
        self.addCleanup(migrate, url, name, "down", "--to", "-1", "--yes")

        def planned(*arguments: object) -> list[str]:
            run = migrate(url, name, "plan", *arguments)
            self.assert_exit(run, OK)
            return re.findall(r"^-- (\d\d)_", run.stdout, re.MULTILINE)

        def numbers(*of: range) -> list[str]:
            return [f"{number:02}" for part in of for number in part]

        self.assertEqual(planned("--to", "3"), numbers(range(4)))
        self.assert_exit(migrate(url, name, "up", "--to", "5"), OK)
        self.assertEqual(self.states(url, name), ["applied"] * 6 + ["pending"] * (ALL - 6))
        self.assertEqual((planned(), planned("--to", "7")), (numbers(range(6, ALL)), numbers(range(6, 8))))
        self.assert_exit(migrate(url, name, "verify"), FAILED, f"{ALL - 6} of {ALL}")
        # Without a number, the last one alone; with one, all above it.
        run = migrate(url, name, "down", "--yes")
        self.assert_exit(run, OK)
        self.assertEqual(run.stdout, "05_aggregation_tables taken back\n")
        run = migrate(url, name, "down", "--to", "2", "--yes")
        self.assert_exit(run, OK)
        self.assertEqual(run.stdout, "04_mv_http_logs taken back\n03_anubis_tables taken back\n")
        self.assertEqual(self.states(url, name), ["applied"] * 3 + ["pending"] * (ALL - 3))
        self.assertIn("nothing to take back", migrate(url, name, "down", "--to", "2", "--yes").stdout)
        self.assertEqual(ask(url, f"EXISTS {name}.http_logs_raw") + ask(url, f"EXISTS {name}.http_logs"), [["1"], ["0"]])
        self.assert_exit(migrate(url, name, "up", "--skip-unsupported", *SECRETS), OK)
        self.assert_exit(migrate(url, name, "verify", *SECRETS), OK)
        self.assertEqual(planned(), [])

    def states(self, url: str, name: str) -> list[str]:
        """What `status` says of each migration."""
        run = migrate(url, name, "status")
        self.assert_exit(run, OK)
        return [re.sub(r" \d{4}-\d\d-\d\d .*", "", line[24:]) for line in run.stdout.splitlines()]

    def test_a_file_that_changed_since_it_was_applied_is_refused(self):
        url, name = shared(), "changed"
        self.assert_exit(migrate(url, name, "up", "--to", "2"), OK)
        ask(url, f"INSERT INTO {name}.schema_migrations (version, name, checksum, state) SELECT 1, 'raw_tables', 'other', 'applied'")
        self.assert_exit(migrate(url, name, "up"), REFUSED, "01_raw_tables has changed")
        self.assertIn("changed since", migrate(url, name, "status").stdout)
        migrate(url, name, "down", "--to", "-1", "--yes")

    def test_no_secret_is_planned_or_missing(self):
        url = shared()
        run = migrate(url, "planned", "plan", "--set", "analyst_password=hunter2")
        self.assert_exit(run, OK)
        self.assertNotIn("hunter2", run.stdout + run.stderr)
        self.assertEqual(ask(url, "SHOW DATABASES LIKE 'planned'"), [])
        self.assert_exit(migrate(url, "planned", "up"), REFUSED, "data_writer_password", "has no value")


class Users(Proxy):
    """Gives a server without user management one: users and their rights are kept here, and queries about them are answered
    from that by the server itself.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.users: dict[str, set[tuple[str, str, str]]] = {}

    def reply(self, handler, body: bytes, fault: str) -> None:
        sql = body.decode()
        names = re.findall(r"`(\w+)`", sql)
        if sql.startswith("CREATE USER IF NOT EXISTS"):
            self.users.setdefault(names[0], set())
        elif sql.startswith("DROP USER IF EXISTS"):
            self.users.pop(names[0], None)
        elif found := re.fullmatch(r"(GRANT|REVOKE) ([\w, ]+) ON `(\w+)`\.(\S+) (?:TO|FROM) `(\w+)`", sql):
            verb, rights, database, table, user = found.groups()
            if user not in self.users:
                respond(handler, 404, {"X-ClickHouse-Exception-Code": "511"}, b"Code: 511. DB::Exception: There is no role. (UNKNOWN_ROLE)\n")
                return
            change = self.users[user].add if verb == "GRANT" else self.users[user].discard
            for right in rights.split(", "):
                change((database, table, right))
        else:
            super().reply(handler, self.answered(sql).encode(), fault)
            return
        respond(handler, 200, {}, b"")

    def answered(self, sql: str) -> str:
        """A query over what is kept here. The first row of each is nobody's."""
        users = ", ".join(f"'{user}'" for user in ["", *self.users])
        rights = ", ".join(f"('{user}', '{database}', '{table}', '{right}')" for user, all_of in [("", {("", "", "")}), *self.users.items()]
                           for database, table, right in all_of)
        sql = sql.replace("system.users", f"values('name String', {users})")
        sql = sql.replace("system.grants", f"values('user_name String, database String, table String, access_type String', {rights})")
        return sql.replace("system.role_grants", "values('user_name String', '')")


@unittest.skipUnless(PYTHON and not os.environ.get("CLICKHOUSE_URL"), "needs a server without users of its own")
class ServerUsers(Case):
    """Users belong to the server: `migrate` shares them with others."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = Users(shared())
        self.addCleanup(self.proxy.close)

    def migrate(self, name: str, *arguments: object, says: str = "") -> None:
        run = migrate(self.proxy.url, name, *arguments, *SECRETS)
        self.assert_exit(run, OK)
        self.assertIn(says, run.stdout)

    def rights(self, user: str, name: str) -> set[tuple[str, str]]:
        return {(table, right) for database, table, right in self.proxy.users[user] if database == name}

    def test_the_sink_may_write_and_read_the_tables_that_it_writes(self):
        self.addCleanup(self.migrate, "rights", "down", "--to", "-1", "--yes")
        self.migrate("rights", "up", says="13_engine_grants applied")
        self.migrate("rights", "verify")
        tables = ("http_logs", "features", "detections", "rejected", "campaigns", "models", "ml_all_scores", "ml_detected_anomalies")
        for table in tables:
            self.assertEqual(ask(shared(), f"EXISTS rights.{table}"), [["1"]])
            self.assertLessEqual({(table, "INSERT"), (table, "SELECT")}, self.rights("data_writer", "rights"))
        self.assertEqual({right for _, right in self.rights("analyst", "rights")}, {"SELECT", "dictGet"})
        self.migrate("rights", "down", "--to", "12", "--yes")
        self.assertEqual(self.rights("data_writer", "rights"), {("http_logs_raw", "INSERT"), ("http_logs_raw", "SELECT")})
        self.assert_exit(migrate(self.proxy.url, "rights", "verify"), FAILED, f"{ALL - 13} of {ALL}")

    def test_users_that_were_there_before_stay_and_lose_what_they_were_given(self):
        self.proxy.users["analyst"] = {("other", "t", "SELECT")}
        self.migrate("before", "up")
        self.assertGreater(len(self.rights("analyst", "before")), 10)
        self.migrate("before", "down", "--to", "-1", "--yes", says="user analyst stays: as far as is noted, `migrate up` did not make it")
        self.assertEqual(self.proxy.users, {"analyst": {("other", "t", "SELECT")}})

    def test_users_that_another_database_needs_stay(self):
        self.migrate("first", "up")
        self.migrate("second", "up")
        self.migrate("first", "down", "--to", "7", "--yes", says="user data_writer stays: it has rights outside of first")
        self.assertEqual(set(self.proxy.users), {"data_writer", "analyst"})
        self.assertEqual(self.rights("data_writer", "first"), set())
        self.migrate("second", "verify")
        self.migrate("second", "down", "--to", "-1", "--yes", says="user data_writer stays")
        self.migrate("first", "down", "--to", "-1", "--yes")

    def test_a_schema_of_a_program_that_did_not_note_users_keeps_them(self):
        self.migrate("earlier", "up")
        ask(shared(), "ALTER TABLE earlier.schema_migrations DROP COLUMN created")
        self.migrate("earlier", "down", "--to", "-1", "--yes", says="user analyst stays")
        self.assertEqual(self.proxy.users, {"data_writer": set(), "analyst": set()})

    def test_users_of_the_migrations_own_are_dropped(self):
        self.migrate("own", "up")
        del self.proxy.users["analyst"]
        self.migrate("own", "down", "--to", "-1", "--yes")
        self.assertEqual(self.proxy.users, {})
