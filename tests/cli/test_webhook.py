"""`sink.webhook` and a receiver that refuses, hangs and breaks off: each row once by the names of batches, whatever happens."""

import base64
import hashlib
import hmac
import json
import os
import random
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.feeder import Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.support import OK, REFUSED, Case, wait_for
from tests.traffic import REQUEST

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = min(int(os.environ.get("KILLS", 4)), 20)
SECRET = b"a key of the tests"


class Receiver:
    """Takes batches by their names, and does to each request what `behave` says: a status, or "hang" or "break", which is
    done before or after the batch was taken.
    """

    def __init__(self, behave, tls: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self.lock = threading.Lock()
        self.batches: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests = 0
        self.closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.server_port}/hook?key=hidden"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = request.rfile.read(int(request.headers["content-length"]))
        with self.lock:
            self.requests += 1
            action, is_taken = self.behave(self.requests)
            self.check(request.headers, body, is_taken or action == 200)
        if action == "hang":
            self.closing.wait(30)
        if action in ("hang", "break"):
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
            return
        text = b"no, because \x1b[2J" if action >= 400 else b"ok"
        request.send_response(action)
        request.send_header("content-length", str(len(text)))
        if action == 429:
            request.send_header("retry-after", "0")
        if action == 302:
            request.send_header("location", "http://127.0.0.1:9/")
        request.end_headers()
        request.wfile.write(text)

    def check(self, headers, body: bytes, is_taken: bool) -> None:
        """The request is as the manual says; what comes again is the same."""
        name = headers["idempotency-key"]
        if "webhook-id" not in headers:
            # Sent again by the command beside a dead letter.
            self.batches[name] = body
            return
        signed = f"{name}.{headers['webhook-timestamp']}.".encode() + body
        signature = "v1," + base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        batch = json.loads(body)
        problems = {
            "signature": headers["webhook-signature"] != signature,
            "name": name != headers["webhook-id"] or name != batch["batch"],
            "age": abs(int(headers["webhook-timestamp"]) - time.time()) > 60,
            "type": headers["content-type"] != "application/json",
            "own header": headers["x-own"] != "of the tests",
            "content": self.batches.get(name, body) != body,
        }
        self.faults += [f"{what} of {name}" for what, is_wrong in problems.items() if is_wrong]
        if is_taken:
            self.batches[name] = body

    def rows(self) -> list[str]:
        """All rows, each once for every name of a batch."""
        with self.lock:
            batches = list(self.batches.values())
        return [json.dumps(row, sort_keys=True) for body in batches for row in json.loads(body)["rows"]]


def unreliable(rng: random.Random):
    """A third of the requests fail, in every way, before or after the batch was taken."""
    def behave(_: int) -> tuple[object, bool]:
        if rng.random() < 0.66:
            return 200, True
        return rng.choice([408, 429, 500, 503, 302, "hang", "break"]), rng.random() < 0.5
    return behave


def request(number: int) -> str:
    """A line of reqin_log."""
    line = {"timestamp": 1_795_448_127_000_000_000 + number * 7_000_000, "src_ip": "192.0.2.1", "src_port": number % 60000,
            "host": "é\"\\", "path": f"/{number}"}
    return json.dumps(line) + "\n"


class Webhook(Case):
    """A file that is read to its end."""

    def setUp(self) -> None:
        super().setUp()
        self.receiver: Receiver | None = None

    def receive(self, behave, tls: ssl.SSLContext | None = None) -> Receiver:
        """A receiver that ends with the test."""
        receiver = Receiver(behave, tls)
        self.addCleanup(receiver.close)
        return receiver

    def post(self, receiver: Receiver, rows: int, options: str = "", environment: dict | None = None):
        """Runs a pipeline that posts so many rows."""
        self.write("lines.jsonl", "".join(map(request, range(rows))))
        self.write("post.yaml", f"""\
name: post
data_dir: data
nodes:
  - {{ id: lines, kind: source.file, path: lines.jsonl, format: reqin_log }}
  - {{ id: hook, kind: sink.webhook, from: lines, url: "${{HOOK}}", secret: "${{KEY}}", headers: {{ X-Own: of the tests }},
      columns: [time, host, path] {options} }}
""")
        variables = {"HOOK": receiver.url, "KEY": SECRET.decode()} | (environment or {})
        return self.engine("run", self.directory / "post.yaml", environment=variables)

    def test_each_row_is_there_once_by_the_names_of_batches(self):
        print(f"\n    SEED={SEED} ", end="", flush=True)
        receiver = self.receive(unreliable(random.Random(SEED)))
        run = self.post(receiver, 3000, ", max_rows: 40, timeout: 400ms, max_pause: 200ms")
        self.assert_exit(run, OK)
        self.assertEqual(receiver.faults, [])
        self.assert_same_rows([json.loads(row)["path"] for row in receiver.rows()], (f"/{number}" for number in range(3000)))
        self.assertTrue(all(len(json.loads(body)["rows"]) <= 40 for body in receiver.batches.values()))
        self.assertGreater(receiver.requests, len(receiver.batches), "nothing failed")
        self.assertNotIn("hidden", run.stderr, "the URL is a secret")
        self.assertNotIn(SECRET.decode(), run.stderr)

    def test_what_is_refused_goes_to_the_dead_letters(self):
        receiver = self.receive(lambda number: (422, False) if number == 1 else (200, True))
        run = self.post(receiver, 30, ", max_rows: 10")
        self.assert_exit(run, OK, "422")
        letters = list((self.directory / "data/dead_letters/hook").glob("*.json"))
        refused = [row["path"] for letter in letters for row in json.loads(letter.read_text())["rows"]]
        taken = [json.loads(row)["path"] for row in receiver.rows()]
        self.assertTrue(refused and taken)
        self.assert_same_rows(refused + taken, (f"/{number}" for number in range(30)))
        reason = letters[0].with_suffix(".reason").read_text()
        self.assertIn("422", reason)
        self.assertNotIn("hidden", reason, "the URL is a secret")
        self.assertNotIn("\x1b", reason)
        # The command in the reason sends it again.
        command = reason.split("signature):\n")[1]
        receiver.behave = lambda _: (200, True)
        again = subprocess.run(["bash", "-c", command], env=os.environ | {"WEBHOOK_URL": receiver.url}, check=False,
                               capture_output=True, timeout=60)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn(letters[0].stem, receiver.batches)

    def test_https_with_a_certificate_that_this_machine_trusts(self):
        key, certificate = self.directory / "key.pem", self.directory / "certificate.pem"
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
             "-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:false"],
            capture_output=True, check=False, timeout=60)
        self.assertEqual(made.returncode, 0, made.stderr)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        receiver = self.receive(lambda _: (200, True), tls)
        run = self.post(receiver, 10, environment={"SSL_CERT_FILE": certificate})
        self.assert_exit(run, OK)
        self.assertEqual((receiver.faults, len(receiver.rows())), ([], 10))

    def test_options_that_cannot_be(self):
        nodes = "- { id: lines, kind: source.file, path: lines.jsonl, format: reqin_log }"
        self.write("lines.jsonl", "")
        for options, *says in [
            ("url: ftp://example.test/s3cret", "http[s]://host"),
            ("url: https://me:s3cret@example.test", "authorization"),
            ("url: https://example.test, secret: whsec_s3cret!", "base64"),
            ("url: https://example.test, headers: { Webhook-Id: s3cret }", "own"),
            ("url: https://example.test, max_rows: 0", "greater than 0"),
            ("url: https://example.test, command: 'logger s3cret'", "command"),
        ]:
            self.write("bad.yaml", f"name: bad\nnodes:\n  {nodes}\n  - {{ id: hook, kind: sink.webhook, from: lines, {options} }}\n")
            run = self.engine("validate", self.directory / "bad.yaml")
            self.assert_exit(run, REFUSED, *says)
        self.write("open.yaml", f"name: open\nnodes:\n  {nodes}\n"
                   "  - { id: hook, kind: sink.webhook, from: lines, url: 'http://hooks.example.test/s3cret' }\n")
        run = self.engine("validate", self.directory / "open.yaml")
        self.assert_exit(run, OK, "unencrypted")


class Killed(LiveCase):
    """A live pipeline that is killed while it posts."""

    def pipeline(self, receiver: Receiver, max_rows: int) -> str:
        """The pipeline of the live tests with a webhook behind it."""
        node = (f"  - {{ id: hook, kind: sink.webhook, from: correlated, url: '{receiver.url}', secret: {SECRET.decode()}, "
                f"headers: {{ X-Own: of the tests }}, max_rows: {max_rows}, timeout: 400ms, max_pause: 200ms }}\n")
        return pipeline(nodes=node)

    def test_after_kills_each_row_is_there_once_by_the_names_of_batches(self):
        """Also if the bounds of batches are others after each kill."""
        print(f"\n    {KILLS} kills, SEED={SEED} ", end="", flush=True)
        rng = random.Random(SEED)
        receiver = Receiver(unreliable(rng))
        self.addCleanup(receiver.close)
        with Feeder(traffic(SEED, seconds=120, connections_per_s=100).events(), self.directory) as feeder:
            for number in range(KILLS + 1):
                self.write("live.yaml", self.pipeline(receiver, (20, 3)[number % 2]))
                self.begin()
                feed_for(feeder, rng.uniform(0.5, 1.5))
                if number < KILLS:
                    self.kill()
        spooled = set(self.exported(REQUEST))
        receiver.behave = lambda _: (200, True)
        self.await_requests(spooled & feeder.ids(REQUEST))
        rows = [json.dumps(row, sort_keys=True) for row in self.output("rows.jsonl")]
        wait_for("the last batch", lambda: len(receiver.rows()) >= len(rows))
        self.stop()
        rows = [json.dumps(row, sort_keys=True) for row in self.output("rows.jsonl")]
        self.assertGreater(len(rows), 100)
        self.assertEqual(receiver.faults, [])
        self.assert_same_rows(receiver.rows(), rows)
