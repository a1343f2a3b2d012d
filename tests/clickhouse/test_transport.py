"""How rows travel: TLS with certificates of a private authority, LZ4, credentials, asynchronous inserts."""

import json
import ssl
import subprocess
import unittest

from tests.clickhouse.proxy import Proxy
from tests.clickhouse.server import PYTHON, ask, schema, shared
from tests.support import FAILED, OK, REFUSED, Case
from tests.traffic import START

PIPELINE = """\
name: transport
data_dir: data-{database}
nodes:
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }}
  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: requests }}, url: "{url}", database: {database}{options} }}
"""
ROWS = 300


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Transport(Case):
    """Rows of a file, by one way or another."""

    def pipeline(self, url: str, database: str, options: str = ""):
        rows = [{"timestamp": START + nth * 10**7, "src_ip": "192.0.2.1", "src_port": 1024 + nth, "method": "GET", "host": "h", "path": f"/{nth}"}
                for nth in range(ROWS)]
        self.write("requests.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return self.write("transport.yaml", PIPELINE.format(url=url, database=database, options=options))

    def rows(self, database: str) -> list[str]:
        return ask(shared(), f"SELECT count(), uniqExact(path) FROM {database}.http_logs")[0]

    def openssl(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], cwd=self.directory, check=True, capture_output=True)

    def test_tls_by_a_private_authority(self):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem",
                     "-subj", "/CN=Test authority", "-addext", "basicConstraints=critical,CA:TRUE")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=clickhouse")
        extension = self.write("san.txt", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        self.openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", "server.pem",
                     "-extfile", extension)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.pem", self.directory / "server.key")
        proxy = Proxy(shared(), tls=context)
        self.addCleanup(proxy.close)
        path = self.pipeline(proxy.url, schema(shared(), "tls"))
        trusted = {"SSL_CERT_FILE": self.directory / "ca.pem"}
        self.assert_exit(self.engine("validate", "--connect", path), FAILED, "certificate")
        self.assert_exit(self.engine("validate", "--connect", path, environment=trusted), OK)
        self.assert_exit(self.engine("run", "--quiet", path, environment=trusted), OK)
        self.assertEqual(self.rows("tls"), [str(ROWS)] * 2)

    def test_inserts_are_compressed_and_may_be_asynchronous(self):
        proxy = Proxy(shared())
        self.addCleanup(proxy.close)
        database = schema(shared(), "asynchronous")
        self.assert_exit(self.engine("run", "--quiet", self.pipeline(proxy.url, database, ", async_insert: true")), OK)
        self.assertEqual(self.rows(database), [str(ROWS)] * 2)
        for setting in ("decompress=1", "async_insert=1", "wait_for_async_insert=1", "insert_deduplication_token=",
                        "async_insert_deduplicate=1", "deduplicate_insert=enable"):
            self.assertIn(setting, proxy.insert)

    def test_asynchronous_inserts_that_are_sent_again_are_there_once(self):
        """chdb has no queue for such inserts and does them at once; what a server's queue does, CLICKHOUSE_URL tells."""
        proxy = Proxy(shared(), seed=1, share=1.0, most=5, faults=("cut_after", "exception_after"))
        self.addCleanup(proxy.close)
        database = schema(shared(), "asynchronous_again")
        path = self.pipeline(proxy.url, database, ", async_insert: true, max_pause: 200ms")
        self.assert_exit(self.engine("run", "--quiet", path), OK)
        self.assertEqual(proxy.counts.total(), 5)
        self.assertEqual(self.rows(database), [str(ROWS)] * 2)
        self.assertEqual(ask(shared(), f"SELECT sum(hits) FROM {database}.agg_host_ip_ja4_1h"), [[str(ROWS)]])

    def test_asynchronous_inserts_are_refused_where_they_may_be_stored_twice(self):
        proxy = Proxy(shared())
        self.addCleanup(proxy.close)
        database = schema(shared(), "asynchronous_old")
        proxy.version = "25.12.3.1"
        path = self.pipeline(proxy.url, database, ", async_insert: true")
        self.assert_exit(self.engine("validate", "--connect", path), REFUSED, "ClickHouse 25.12", "`async_insert` needs 26.2")
        self.assert_exit(self.engine("run", "--quiet", path), FAILED, "`async_insert` needs 26.2")
        self.assertEqual(self.rows(database), ["0", "0"])
        self.assert_exit(self.engine("run", "--quiet", self.pipeline(proxy.url, database)), OK)
        self.assertEqual(self.rows(database), [str(ROWS)] * 2)

    def test_a_wrong_password_is_said_and_not_shown(self):
        path = self.pipeline(shared().replace("http://", "http://me:s3cret@"), schema(shared(), "tls"))
        run = self.engine("validate", "--connect", path)
        self.assert_exit(run, FAILED, "authentication failed")
        self.assertNotIn("s3cret", run.stdout + run.stderr)
