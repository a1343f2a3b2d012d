"""Captures as they come: truncated, pcapng, empty, no capture at all, missing; and captures that are not allowed."""

import os

from tests.support import FAILED, NO_PERMISSION, OK, PIPELINES, RECORDING, REFUSED, Case, as_pcapng, lines, packets

CAPTURE = RECORDING / "capture.pcap"


class Captures(Case):
    """pipelines/hellos.yaml on each of them."""

    def run_on(self, capture):
        """The run, and the hellos it wrote."""
        hellos = self.directory / "hellos.jsonl"
        hellos.unlink(missing_ok=True)
        variables = {"CAPTURE": capture, "HELLOS": hellos}
        run = self.engine("run", PIPELINES / "hellos.yaml", environment=variables)
        return run, lines(hellos) if hellos.exists() else []

    def test_a_pcapng_file_gives_the_same_hellos(self):
        """The format is told by its content."""
        run, plain = self.run_on(CAPTURE)
        self.assert_exit(run, OK)
        run, newer = self.run_on(self.write("capture.pcapng", as_pcapng(CAPTURE.read_bytes())))
        self.assert_exit(run, OK)
        self.assertEqual(newer, plain)
        self.assertGreater(len(plain), 100)

    def test_a_truncated_file_is_read_up_to_the_break_and_says_so(self):
        """The packets before the break count; the summary counts the truncation."""
        capture = CAPTURE.read_bytes()
        records = list(packets(capture))
        whole = capture[:24] + b"".join(header + data for header, data in records[:2000])
        header, data = records[2000]
        run, expected = self.run_on(self.write("whole.pcap", whole))
        self.assert_exit(run, OK)
        self.assertNotIn("truncated_file", run.stderr)
        self.assertGreater(len(expected), 10)
        for name, rest in {"in a packet": header + data[:-1], "in a packet's header": header[:9]}.items():
            with self.subTest(name):
                run, hellos = self.run_on(self.write("torn.pcap", whole + rest))
                self.assert_exit(run, OK, "truncated_file 1", "torn.pcap")
                self.assertEqual(hellos, expected)

    def test_what_is_no_capture_is_refused_with_its_place(self):
        """Nothing is written for a pipeline that is refused."""
        cases = {
            "empty.pcap": (b"", "empty"),
            "noise.pcap": (b"GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n" * 20, "noise.pcap"),
            "head.pcap": (CAPTURE.read_bytes()[:11], "head.pcap"),
        }
        for name, (content, says) in cases.items():
            with self.subTest(name):
                run, _ = self.run_on(self.write(name, content))
                self.assert_exit(run, REFUSED, says, "hellos.yaml:")
                self.assertFalse((self.directory / "hellos.jsonl").exists())

    def test_a_missing_file_is_refused_with_its_place(self):
        """The message names the file."""
        run, _ = self.run_on(self.directory / "nowhere.pcap")
        self.assert_exit(run, REFUSED, "nowhere.pcap", "hellos.yaml:")

    def test_a_capture_without_hellos_is_no_error(self):
        """A file of no packets is a capture all the same."""
        run, hellos = self.run_on(self.write("none.pcap", CAPTURE.read_bytes()[:24]))
        self.assert_exit(run, OK)
        self.assertEqual(hellos, [])

    def test_hellos_go_to_standard_output(self):
        """Only rows go there, so that they can be piped."""
        run = self.engine("run", PIPELINES / "hellos.yaml", environment={"CAPTURE": CAPTURE})
        self.assert_exit(run, OK)
        self.assertTrue(run.stdout.startswith('{"time":"'), run.stdout[:80])
        self.assertEqual(len(run.stdout.splitlines()), len(self.run_on(CAPTURE)[1]))


class Interfaces(Case):
    """Live capture that cannot start."""

    def live(self, interface, prefix=()):
        """A pipeline on an interface."""
        pipeline = self.write(
            "live.yaml",
            "name: live\nnodes:\n"
            f"  - {{ id: packets, kind: source.pcap, interface: {interface} }}\n"
            "  - { id: hellos, kind: tls.client_hello, from: packets }\n"
            "  - { id: out, kind: sink.jsonl, from: hellos, path: hellos.jsonl }\n",
        )
        return self.engine("run", pipeline, prefix=prefix)

    def test_no_permission_to_capture(self):
        """Without CAP_NET_RAW the message says what to do."""
        # Root without the capability stands for any other user, who may not be able to read the build directory.
        without = ("setpriv", "--bounding-set=-net_raw,-net_admin", "--inh-caps=-net_raw,-net_admin")
        run = self.live("lo", prefix=without if os.geteuid() == 0 else ())
        self.assert_exit(run, NO_PERMISSION, "no permission to capture on lo", "cap_net_raw")

    def test_an_unknown_interface(self):
        """The name is in the message."""
        run = self.live("nowhere0")
        self.assertIn(run.returncode, (FAILED, REFUSED) if os.geteuid() == 0 else (FAILED, REFUSED, NO_PERMISSION))
        self.assert_exit(run, run.returncode, "nowhere0")
