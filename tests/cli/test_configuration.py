"""Pipelines that are wrong, an address that is taken, signals; and the commands that need no input."""

import json
import signal
import socket

from tests.support import NO_ADDRESS, OK, PIPELINES, RECORDING, REFUSED, Case, lines, running, served, wait_for

# What the pipelines need to be valid anywhere. What HELLOS holds is not read.
VARIABLES = {
    "ASN_CSV": RECORDING / "asn.csv", "CAPTURE": RECORDING / "capture.pcap", "HELLOS": RECORDING / "truth.jsonl",
    "REQUESTS": RECORDING / "requests.jsonl", "OUT": "/tmp", "INTERFACE": "lo",
}


class Validate(Case):
    """`validate`, and what `run` refuses."""

    def test_the_pipelines_of_this_repository_are_valid(self):
        """Also without the right to capture."""
        for path in sorted(PIPELINES.glob("*.yaml")):
            with self.subTest(path.name):
                self.assert_exit(self.engine("validate", path, environment=VARIABLES), OK)

    def test_every_fault_is_shown_at_once_with_its_place_and_the_nearest_name(self):
        """An unknown kind, an unknown key, a wrong column, a missing input."""
        pipeline = self.write("typo.yaml", f"""\
name: typo
nodes:
  - id: requests
    kind: source.file
    path: {RECORDING}/requests.jsonl
    fromat: reqin_log
  - id: posts
    kind: filter
    from: request
    where: method = 'POST'
  - id: again
    kind: fliter
    from: requests
    where: "true"
""")
        for command in ("validate", "run"):
            with self.subTest(command):
                run = self.engine(command, pipeline)
                self.assert_exit(run, REFUSED, "typo.yaml:6:", "fromat", "`format`", "typo.yaml:9:", "`requests`",
                                 "typo.yaml:12:", "`filter`")

    def test_a_wrong_column_is_found_inside_an_expression(self):
        """Line and column are those of the name in the YAML."""
        pipeline = self.write("column.yaml", f"""\
name: column
nodes:
  - {{ id: requests, kind: source.file, path: {RECORDING}/requests.jsonl, format: reqin_log }}
  - id: posts
    kind: filter
    from: requests
    where: >-
      status_code = 200 and
      methd = 'POST'
""")
        run = self.engine("validate", pipeline)
        self.assert_exit(run, REFUSED, "column.yaml:9:7", "methd", "method")

    def test_files_that_are_no_pipeline(self):
        """Missing, empty, no YAML, binary, deeply nested."""
        cases = {"empty.yaml": b"", "scalar.yaml": b"42", "broken.yaml": b"nodes: [", "binary.yaml": bytes(range(256)),
                 "deep.yaml": b"[" * 50_000, "aliases.yaml": _alias_bomb()}
        for name, content in cases.items():
            with self.subTest(name):
                self.assert_exit(self.engine("validate", self.write(name, content)), REFUSED, name)
        self.assert_exit(self.engine("run", self.directory / "nowhere.yaml"), REFUSED, "nowhere.yaml")

    def test_a_variable_that_is_not_set_is_named(self):
        """hellos.yaml needs CAPTURE."""
        self.assert_exit(self.engine("validate", PIPELINES / "hellos.yaml"), REFUSED, "`CAPTURE`", "hellos.yaml:")

    def test_wrong_usage(self):
        """As with other faults of the configuration."""
        for arguments in ([], ["rnu", "x.yaml"], ["run"], ["run", "--workers", "0", PIPELINES / "demo.yaml"]):
            with self.subTest(arguments):
                self.assert_exit(self.engine(*arguments), REFUSED)


class Describe(Case):
    """`list`, `schema`, `graph`, `--help`."""

    def test_list_names_every_kind_that_the_demo_uses(self):
        """With its options."""
        kinds = [line.split("kind: ")[1].split(",")[0].strip()
                 for line in (PIPELINES / "demo.yaml").read_text().splitlines() if "kind: " in line]
        listed = self.engine("list")
        self.assert_exit(listed, OK)
        for kind in kinds:
            self.assertIn(kind, listed.stdout)
        self.assertIn("keepalive_ttl", self.engine("list", "correlate").stdout)

    def test_the_schema_is_json_and_knows_the_kinds(self):
        """Editors check pipelines with it."""
        schema = json.loads(self.engine("schema").stdout)
        self.assertIn("2020-12", schema["$schema"])
        self.assertIn("tls.client_hello", json.dumps(schema))

    def test_the_graph_has_every_node(self):
        """In both notations."""
        for notation, start in {"mermaid": ("flowchart", "graph"), "dot": ("digraph",)}.items():
            graph = self.engine("graph", PIPELINES / "demo.yaml", "--format", notation)
            self.assert_exit(graph, OK)
            self.assertTrue(graph.stdout.lstrip().startswith(start), graph.stdout[:60])
            for node in ("packets", "hellos", "correlated", "detections_file"):
                self.assertIn(node, graph.stdout)

    def test_help_documents_the_exit_codes(self):
        """They are part of the interface."""
        self.assertIn("exit", self.engine("run", "--help").stdout.lower() + self.engine("--help").stdout.lower())


class Service(Case):
    """The web service's address, and how a run ends."""

    def socket_pipeline(self, port=0):
        """A live pipeline that needs no rights."""
        return self.write("socket.yaml", f"""\
name: socket
nodes:
  - {{ id: requests, kind: source.unix_socket, path: http.socket, format: reqin_log }}
  - {{ id: out, kind: sink.jsonl, from: requests, path: requests.out }}
serve: {{ listen: "127.0.0.1:{port}", tables: {{ requests: requests }} }}
""")

    def test_a_port_that_is_in_use(self):
        """The message names the address; nothing is run."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            run = self.engine("run", self.socket_pipeline(port))
        self.assert_exit(run, NO_ADDRESS, f"127.0.0.1:{port}", "in use")
        self.assertFalse((self.directory / "http.socket").exists())

    def test_a_signal_ends_a_live_run_after_what_has_come_in(self):
        """SIGTERM and SIGINT: what was received is written, the socket's file is gone, exit code 0. The second run goes on."""
        sent = (RECORDING / "requests.jsonl").read_bytes().splitlines()[:50]
        for runs, number in enumerate((signal.SIGTERM, signal.SIGINT), start=1):
            with self.subTest(number.name):
                log = self.directory / "log"
                with running("run", self.socket_pipeline(), log=log) as process:
                    path = self.directory / "http.socket"
                    wait_for("the socket", path.exists)
                    served(log)
                    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                        client.connect(str(path))
                        for line in sent:
                            client.send(line)
                    process.send_signal(number)
                    self.assertEqual(process.wait(60), OK, log.read_text())
                self.assertEqual(len(lines(self.directory / "requests.out")), runs * len(sent))
                self.assertFalse(path.exists())


def _alias_bomb() -> bytes:
    """Ten levels of ten aliases each."""
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11)]
    return "\n".join(levels).encode()
