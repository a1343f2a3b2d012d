"""Captures as they come: truncated, pcapng, compressed, damaged, empty, no capture at all, missing; the same by `fingerprint`; and
captures that are not allowed."""

import gzip
import json
import lzma
import os
import shutil
import struct
import subprocess
import threading

from tests.support import ENGINE, FAILED, NO_PERMISSION, OK, PIPELINES, RECORDING, REFUSED, Case, as_pcapng, lines, packets

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
        run, named = self.run_on(self.write("capture.pcapng", as_pcapng(CAPTURE.read_bytes(), "mirror0")))
        self.assert_exit(run, OK)
        self.assertEqual(named, [{**row, "interface": "mirror0"} for row in plain])
        self.assertFalse(any("interface" in row for row in plain))

    def test_compressed_files_give_the_same_hellos(self):
        """What they are is told by their content, also in several parts; what is cut off is used, what is damaged is not."""
        content = as_pcapng(CAPTURE.read_bytes())
        _, plain = self.run_on(CAPTURE)
        for pack in (gzip.compress, lzma.compress, zstd):
            with self.subTest(pack):
                if pack is zstd and not shutil.which("zstd"):
                    self.skipTest("SKIPPED: zstd is not installed")
                packed = pack(content[:100_000]) + pack(content[100_000:])
                run, hellos = self.run_on(self.write("packed", packed))
                self.assert_exit(run, OK)
                self.assertEqual(hellos, plain)
                run, hellos = self.run_on(self.write("torn", packed[: len(packed) // 2]))
                self.assert_exit(run, OK, "truncated_file 1", "torn", "ends in the middle of its")
                self.assertLess(10, len(hellos))
                self.assertEqual(hellos, plain[: len(hellos)])
                run, _ = self.run_on(self.write("trailed", packed + b"trailing garbage"))
                self.assert_exit(run, FAILED, "trailed", "cannot be understood")

    def test_a_file_that_cannot_be_understood_fails_the_run_with_its_place(self):
        """At the first packet the pipeline is refused; in the middle, packets before it are used."""
        capture = CAPTURE.read_bytes()
        records = list(packets(capture))
        half = capture[:24] + b"".join(header + data for header, data in records[:2000])
        _, expected = self.run_on(self.write("half.pcap", half))
        damaged = {"classic": half, "newer": as_pcapng(half)}
        for name, content in damaged.items():
            with self.subTest(name):
                run, hellos = self.run_on(self.write("damaged", content + b"\xee" * 4000))
                self.assert_exit(run, FAILED, f"damaged cannot be understood at byte {len(content)}: ")
                self.assertNotIn("truncated", run.stderr)
                self.assertEqual(hellos, expected)
                run = self.engine("fingerprint", self.directory / "damaged")
                self.assert_exit(run, FAILED, f"damaged cannot be understood at byte {len(content)}: ")
                self.assertEqual(len(run.stdout.splitlines()), len(expected))
        run, _ = self.run_on(self.write("damaged", capture[:24] + b"\xee" * 4000))
        self.assert_exit(run, REFUSED, "damaged cannot be understood at byte 24: ", "hellos.yaml:")

    def test_hellos_to_any_port_are_found_and_what_ports_leave_out_is_counted(self):
        """As pipelines/hellos.yaml says."""
        capture = CAPTURE.read_bytes()
        moved = capture[:24] + b"".join(header + elsewhere(data) for header, data in packets(capture))
        path = self.write("ports.pcap", moved)
        _, plain = self.run_on(CAPTURE)
        run, hellos = self.run_on(path)
        self.assert_exit(run, OK)
        self.assertNotIn("filtered", run.stderr)
        self.assertEqual([row["dst_port"] for row in hellos], [row["dst_port"] + 1000 for row in plain])
        run = self.engine("run", PIPELINES / "hellos.yaml", "--set", "packets.ports=[1443]", environment={"CAPTURE": path})
        self.assert_exit(run, OK, "filtered ")
        self.assertEqual({json.loads(line)["dst_port"] for line in run.stdout.splitlines()}, {1443})

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


def elsewhere(frame: bytes) -> bytes:
    """The frame with ports 443 and 8443 of TCP and UDP over IPv4 or IPv6 moved by 1000, and the checksum with them (RFC 1624)."""
    kind, changed = frame[12:14], bytearray(frame)
    at, protocol = (34, frame[23]) if kind == b"\x08\x00" else (54, frame[20]) if kind == b"\x86\xdd" else (0, 0)
    if protocol not in (6, 17):
        return frame
    place = at + (16 if protocol == 6 else 6)
    for port_at in (at, at + 2):
        port, checksum = (struct.unpack_from(">H", changed, where)[0] for where in (port_at, place))
        if port in (443, 8443):
            struct.pack_into(">H", changed, port_at, port + 1000)
            total = (~checksum & 0xFFFF) + (~port & 0xFFFF) + port + 1000
            total = (total & 0xFFFF) + (total >> 16)
            struct.pack_into(">H", changed, place, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return bytes(changed)


class Fingerprint(Case):
    """`ja4-engine fingerprint` of files and of standard input."""

    def test_its_lines_are_the_records_of_a_pipeline(self):
        """Read as `format: ja4sentinel` they give the rows that the capture gives, with a value in each column."""
        capture = self.write("named.pcapng", as_pcapng(CAPTURE.read_bytes(), "mirror0"))
        run = self.engine("fingerprint", "--sensor-id", "here", capture)
        self.assert_exit(run, OK)
        self.write("lines.jsonl", run.stdout)
        pipeline = self.write("both.yaml", """\
name: both
nodes:
  - { id: packets, kind: source.pcap, file: named.pcapng }
  - { id: hellos, kind: tls.client_hello, from: packets, sensor_id: here, variants: true, retries: true }
  - { id: direct, kind: sink.jsonl, from: hellos, path: direct.jsonl }
  - { id: lines, kind: source.file, path: lines.jsonl, format: ja4sentinel }
  - { id: by_lines, kind: sink.jsonl, from: lines, path: by_lines.jsonl }
""")
        run = self.engine("run", pipeline)
        self.assert_exit(run, OK)
        direct, by_lines = (lines(self.directory / f"{name}.jsonl") for name in ("direct", "by_lines"))
        self.assertGreater(len(direct), 100)
        for rows in (direct, by_lines):
            for row in rows:
                del row["seq"]
        self.assertEqual(by_lines, direct)
        # A column without a value is not written. Of these fields there is no column.
        fields = set(json.loads(self.engine("fingerprint", "--count", "1", capture).stdout)) - {"timestamp", "tls_alpns", "early_data"}
        self.assertEqual({name for row in by_lines for name in row}, fields | {"time"})

    def test_older_names_of_fields_are_taken(self):
        run = self.engine("fingerprint", "--fields", "sni,alpn,alpns", CAPTURE)
        self.assert_exit(run, OK)
        self.assertEqual(list(json.loads(run.stdout.splitlines()[0])), ["tls_sni", "tls_alpn", "tls_alpns"])

    def test_standard_input_and_a_pipe_are_read_whatever_their_format(self):
        expected = self.engine("fingerprint", CAPTURE).stdout
        self.assertGreater(expected.count("\n"), 100)
        content = CAPTURE.read_bytes()
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        for given in (content, as_pcapng(content), gzip.compress(content)):
            run = subprocess.run([ENGINE, "fingerprint", "-"], input=given, capture_output=True, check=False)
            self.assertEqual((run.returncode, run.stdout.decode()), (OK, expected), run.stderr)
            writer = threading.Thread(target=pipe.write_bytes, args=(given,))
            writer.start()
            run = self.engine("fingerprint", pipe)
            writer.join()
            self.assertEqual((run.returncode, run.stdout), (OK, expected), run.stderr)

    def test_what_cannot_be_read_is_said_and_does_not_keep_others_back(self):
        few = self.engine("fingerprint", CAPTURE).stdout
        empty, text = self.write("empty", b""), self.write("text", b"GET / HTTP/1.1")
        for path, says in {empty: "empty is empty", text: "is not a pcap or pcapng file", self.directory: "cannot be read: Is a directory",
                           self.directory / "nowhere": "cannot be read: No such file"}.items():
            run = self.engine("fingerprint", path, CAPTURE)
            self.assert_exit(run, FAILED, says)
            self.assertEqual(run.stdout, few)
        torn = self.write("torn", CAPTURE.read_bytes()[:-1])
        run = self.engine("fingerprint", torn)
        self.assert_exit(run, FAILED, "torn breaks off", "ends in the middle of a packet at byte")
        self.assertEqual(run.stdout, few)

    def test_a_linktype_that_cannot_be_decoded_is_refused_where_it_is_the_only_one(self):
        """Among others its packets are counted."""
        capture = CAPTURE.read_bytes()
        few = self.engine("fingerprint", CAPTURE).stdout
        other = capture[:20] + struct.pack("<I", 147) + capture[24:]
        for name, content in {"classic": other, "newer": as_pcapng(other)}.items():
            run = self.engine("fingerprint", self.write(name, content))
            self.assert_exit(run, FAILED, f"{name}: packets of linktype 147 cannot be decoded")
            self.assertEqual(run.stdout, "")
        both = as_pcapng(other) + as_pcapng(capture)
        run = self.engine("fingerprint", "--counters", self.write("both", both))
        self.assert_exit(run, OK, f"unknown_link {len(list(packets(capture)))}\n")
        self.assertEqual(run.stdout, few)

    def test_a_filter_is_applied_and_counted(self):
        run = self.engine("fingerprint", "--counters", "-f", "tcp port 8443", self.write("x", as_pcapng(CAPTURE.read_bytes())))
        self.assert_exit(run, OK)
        self.assertEqual({json.loads(line)["dst_port"] for line in run.stdout.splitlines()}, {8443})
        found = dict(line.split() for line in run.stderr.splitlines())
        self.assertEqual(int(found["filtered"]) + int(found["packets_received"]), len(list(packets(CAPTURE.read_bytes()))))
        self.assert_exit(self.engine("fingerprint", "-f", "tcp prot 443", CAPTURE), FAILED, "syntax error")


def zstd(content: bytes) -> bytes:
    """By the program: Python has no such module yet."""
    return subprocess.run(["zstd", "--quiet"], input=content, capture_output=True, check=True).stdout


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
