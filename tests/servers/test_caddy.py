"""Debian's Caddy with its own JSON log as docs/servers.md has it, the engine capturing beside it, and curl: as root.

Each request has the hello of its own connection, by the ports that curl knows; what Caddy says of TLS is what the hello says.
"""

import json
import os
import re
import shutil
import subprocess
import unittest

from tests.servers.debian import DOCUMENT
from tests.support import OK, Case, running, sql, served, wait_for

HOST = "www.example.test"
PORT = 18443
CADDYFILE = """\
{{
	admin off
	auto_https disable_redirects
	skip_install_trust
	storage file_system {dir}/store
}}
https://{host}:{port} {{
	tls internal
	respond "hello"
{log}
}}
"""
PIPELINE = """\
name: caddy
data_dir: data
nodes:
  - {{ id: packets, kind: source.pcap, interface: lo, ports: [{port}] }}
  - {{ id: hellos, kind: tls.client_hello, from: packets }}
  - {{ id: lines, kind: source.file, path: caddy.log, format: caddy, follow: true, lateness: 2s }}
  - {{ id: joined, kind: correlate, from: {{ hello: hellos, request: lines }} }}
serve: {{ listen: 127.0.0.1:0, tables: {{ requests: joined }} }}
"""


def block(language: str) -> str:
    """The block of a language in the document, without its comment."""
    found = re.findall(rf"^```{language}\n#[^\n]*\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    if len(found) != 1:
        raise AssertionError(f"{len(found)} blocks of {language}")
    return found[0]


@unittest.skipUnless(os.geteuid() == 0, "captures packets: as root")
@unittest.skipUnless(shutil.which("caddy"), "caddy is not installed")
class Caddy(Case):
    """On the loopback interface."""

    def curl(self, *arguments: str) -> list[int]:
        """The local ports of its requests."""
        run = subprocess.run(
            ["curl", "-sk", "--resolve", f"{HOST}:{PORT}:127.0.0.1", "-w", "%{local_port}\n", "-o", "/dev/null", *arguments],
            capture_output=True, text=True, check=False, timeout=60)
        return [int(port) for port in run.stdout.split()] if run.returncode == OK else []

    def test_requests_have_the_hellos_of_their_connections(self):
        log = self.write("caddy.log", "")
        text = block("caddyfile").replace("/var/log/caddy/ja4.log", str(log))
        self.write("Caddyfile", CADDYFILE.format(dir=self.directory, host=HOST, port=PORT, log=text))
        self.write("caddy.yaml", PIPELINE.format(port=PORT))
        with (self.directory / "caddy.out").open("wb") as out:
            server = subprocess.Popen(["caddy", "run", "--config", self.directory / "Caddyfile"], stdout=out, stderr=out,
                                      env=os.environ | {"HOME": str(self.directory)})
        self.addCleanup(server.wait, 60)
        self.addCleanup(server.terminate)
        url = f"https://{HOST}:{PORT}"
        wait_for("Caddy", lambda: self.curl(f"{url}/begin"))
        engine_log = self.directory / "engine"
        with running("run", self.directory / "caddy.yaml", log=engine_log):
            base = served(engine_log)
            expected = {}
            for number in range(20):
                version = ("--http1.1", "--http2")[number % 2]
                headers = ["-H", "Cookie: a=b"] if number % 3 == 0 else []
                for forwarded in range(number % 4):
                    headers += ["-H", f"X-Forwarded-For: 203.0.113.{forwarded}, 2001:db8::{forwarded}"]
                port, = self.curl(version, *headers, f"{url}/{number}?a=%20b")
                expected[f"/{number}"] = {
                    "src_ip": "127.0.0.1", "src_port": port, "query": "a=%20b", "host": HOST, "correlated": 1, "status_code": 200,
                    "tls_sni": HOST, "server_tls_sni": HOST, "server_tls_differs": "", "has_cookie": number % 3 == 0,
                    "http_version": ("HTTP/1.1", "HTTP/2.0")[number % 2],
                    "tls_alpn": ("http/1.1", "h2")[number % 2],
                    "header_x_forwarded_for":
                        ", ".join(f"203.0.113.{one}, 2001:db8::{one}" for one in range(number % 4)) or None,
                }
            columns = ", ".join(["path", *expected["/0"]])
            query = f"select {columns} from requests where path <> '/begin'"
            wait_for("rows", lambda: len(sql(base, query)) >= len(expected))
            rows = sql(base, query)
        found = {row["path"]: {name: row.get(name) for name in expected["/0"]} for row in rows}
        for row in found.values():
            row["tls_alpn"] = row["tls_alpn"] and row["tls_alpn"].split(",")[0]
        self.assertEqual(found, expected)
        self.assertNotIn("a=b", json.dumps(rows), "no value of a cookie")
