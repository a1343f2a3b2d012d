"""The schema is applied twice, verified, rolled back and applied again."""

import unittest

from tests.clickhouse.server import PYTHON, SECRETS, ask, migrate, shared
from tests.support import FAILED, OK, REFUSED, Case

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
        url = shared()
        if ["1"] == (ask(url, "SELECT count() FROM system.user_directories") or [["0"]])[0]:
            pass
        run = migrate(url, "flagless", "up", *SECRETS)
        if run.returncode != OK:
            self.assert_exit(run, FAILED, "08_users", "--skip-unsupported")
        migrate(url, "flagless", "down", "--to", "-1", "--yes")

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
