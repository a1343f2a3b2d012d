"""What a run writes to: nothing is changed before a start or a change is sure, no other engine writes to it, links are refused, and
permissions are the pipeline's.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.feeder import SOCKETS
from tests.live_engine import LiveCase
from tests.support import ENGINE, FAILED, NO_ADDRESS, OK, REFUSED, get, wait_for
from tests.traffic import REQUEST

SOCKET = SOCKETS[REQUEST]
BEFORE = "{\"kept\":true}\n" * 1000

LIVE = """\
name: live
data_dir: data
nodes:
  - { id: requests, kind: source.unix_socket, path: SOCKET, format: reqin_log, lateness: 100ms }
  - { id: rows, kind: sink.jsonl, from: requests, path: out/rows.jsonl }
NODES
serve: { listen: 127.0.0.1:PORT, tables: { requests: requests } }
SECTIONS
""".replace("SOCKET", SOCKET)

READ = """\
name: once
data_dir: data
nodes:
  - { id: requests, kind: source.file, path: in.jsonl, format: reqin_log, lateness: 1s }
  - { id: rows, kind: sink.jsonl, from: requests, path: out/rows.jsonl }
NODES
"""


def request(number: int) -> str:
    """A line of a request log."""
    row = {"timestamp": time.time_ns(), "src_ip": "192.0.2.1", "src_port": 1024 + number, "path": f"/{number}"}
    return json.dumps(row) + "\n"


class Outputs(LiveCase):
    """A pipeline whose outputs hold something already."""

    def setUp(self) -> None:
        super().setUp()
        self.out = self.directory / "out"
        self.out.mkdir()
        self.rows_file = self.out / "rows.jsonl"
        self.rows_file.write_text(BEFORE)
        table = self.data / "requests/2026-01-01"
        table.mkdir(parents=True)
        (table / "0-0-x.parquet").write_bytes(b"not a table")
        self.write("in.jsonl", request(1))

    def receives(self) -> bool:
        """Whether somebody listens at the socket."""
        self.assertIsNone(self.process.poll(), f"the engine has ended:\n{self.log.read_text()}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            return sender.connect_ex(str(self.directory / SOCKET)) == 0

    def send(self, *numbers: int) -> None:
        """Sends requests."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self.directory / SOCKET))
            for number in numbers:
                sender.send(request(number).encode())

    def live(self, nodes: str = "", sections: str = "", port: int = 0) -> Path:
        """Writes the live pipeline."""
        text = LIVE.replace("NODES", nodes).replace("SECTIONS", sections).replace("PORT", str(port))
        return self.write("live.yaml", text)

    def outputs(self) -> dict[str, bytes]:
        """All that there is in the folders of outputs; the run's own state is none of it."""
        roots = [self.out, self.data / "requests"]
        return {str(path): path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}

    def paths(self, path: Path | None = None) -> list[str]:
        """The paths of requests in a file, after what was there before."""
        text = (path or self.rows_file).read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [row["path"] for row in map(json.loads, lines) if "path" in row]


class Start(Outputs):
    """A start that fails leaves outputs as they were."""

    def refused(self, pipeline: Path, code: int, *says: str) -> None:
        """Runs it to its failure; then everything is as it was."""
        before, names = self.outputs(), sorted(os.listdir(self.directory))
        run = self.engine("run", pipeline)
        self.assert_exit(run, code, *says)
        self.assertEqual(self.outputs(), before)
        made = set(os.listdir(self.directory)) - set(names)
        self.assertLessEqual(made, {"data"}, "no output is made")

    def test_a_socket_in_use(self):
        """With and without a spool; a new file is not made either."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(self.directory / SOCKET))
            more = "  - { id: more, kind: sink.jsonl, from: requests, path: new/more.jsonl }\n" \
                   "  - { id: store, kind: sink.parquet, from: { requests: requests } }"
            for sections in ("", "spool: off"):
                with self.subTest(sections):
                    self.refused(self.live(more, sections), FAILED, SOCKET)

    def test_an_interface_that_is_missing(self):
        """Beside a source that can be opened."""
        nodes = "  - { id: packets, kind: source.pcap, interface: nosuch0 }\n" \
                "  - { id: hellos, kind: tls.client_hello, from: packets }\n" \
                "  - { id: more, kind: sink.jsonl, from: hellos, path: out/hellos.jsonl }"
        for sections in ("", "spool: off"):
            before = self.outputs()
            run = self.engine("run", self.live(nodes, sections))
            self.assertNotEqual(run.returncode, OK)
            self.assertIn("nosuch0", run.stderr)
            self.assertEqual(self.outputs(), before)

    def test_a_reference_file_that_cannot_be_used(self):
        """Of a pipeline that reads a file, and of a live one."""
        self.write("asn.csv", "no,such,file\n1,2\n")
        nodes = "  - { id: labelled, kind: enrich.asn, from: requests, file: asn.csv }\n" \
                "  - { id: more, kind: sink.jsonl, from: labelled, path: out/more.jsonl }"
        self.refused(self.write("read.yaml", READ.replace("NODES", nodes)), REFUSED, "asn.csv")
        self.refused(self.live(nodes), REFUSED, "asn.csv")

    def test_an_output_that_cannot_be_opened(self):
        """The others are not touched."""
        nodes = "  - { id: more, kind: sink.jsonl, from: requests, path: in.jsonl/more.jsonl }"
        self.refused(self.write("read.yaml", READ.replace("NODES", nodes)), FAILED, "more: ", "in.jsonl/more.jsonl")
        self.refused(self.live(nodes), FAILED, "more: ", "in.jsonl/more.jsonl")

    def test_a_port_in_use(self):
        """The web service cannot start."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            self.refused(self.live(port=other.getsockname()[1]), NO_ADDRESS, "in use")

    def test_a_data_dir_in_use(self):
        """Of another engine, which goes on."""
        self.live()
        self.begin()
        self.send(1)
        wait_for("a row", lambda: self.paths() == ["/1"])
        before = self.outputs()
        other = self.write("other.yaml", (self.directory / "live.yaml").read_text().replace(SOCKET, "other.socket"))
        run = self.engine("run", other)
        self.assert_exit(run, FAILED, "in use", str(self.process.pid))
        self.assertEqual(self.outputs(), before)
        self.stop()

    def test_looking_at_a_pipeline_changes_nothing(self):
        """`validate` and `plan-diff`."""
        live = self.live()
        before = self.outputs()
        self.assert_exit(self.engine("validate", live), OK)
        self.assert_exit(self.engine("plan-diff", live, self.write("read.yaml", READ.replace("NODES", ""))), OK)
        self.assertEqual(self.outputs(), before)

    def test_a_start_that_is_sure_empties_its_file(self):
        """As it always did; with `append` it does not."""
        self.assert_exit(self.engine("run", self.write("read.yaml", READ.replace("NODES", ""))), OK)
        self.assertEqual(self.rows_file.read_text().count("\n"), 1)
        self.rows_file.write_text(BEFORE)
        appended = READ.replace("NODES", "").replace("rows.jsonl }", "rows.jsonl, append: true }")
        self.assert_exit(self.engine("run", self.write("read.yaml", appended)), OK)
        self.assertTrue(self.rows_file.read_text().startswith(BEFORE))
        self.assertEqual(self.paths(), ["/1"])


class Change(Outputs):
    """A change that is refused leaves the outputs of what was not to be."""

    def last_reload(self) -> dict:
        """The outcome of the latest."""
        return json.loads(get(f"http{self.base.removeprefix('http')}/status")[1])["reloads"].get("last") or {}

    def test_a_refused_change_touches_no_file(self):
        """Neither one that is there, nor one that would be new."""
        self.live()
        self.begin()
        self.send(1)
        wait_for("a row", lambda: self.paths() == ["/1"])
        (self.out / "there.jsonl").write_text(BEFORE)
        before = self.outputs()
        nodes = "  - { id: there, kind: sink.jsonl, from: requests, path: out/there.jsonl }\n" \
                "  - { id: new, kind: sink.jsonl, from: requests, path: out/folder/new.jsonl }\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(self.directory / "taken.socket"))
            for fault in ("{ id: more, kind: source.unix_socket, path: taken.socket, format: reqin_log }",
                          "{ id: bad, kind: sink.jsonl, from: requests, path: in.jsonl/bad.jsonl }"):
                with self.subTest(fault):
                    text = LIVE.replace("NODES", f"{nodes}  - {fault}").replace("SECTIONS", "").replace("PORT", "0")
                    self.write("next.yaml", text).rename(self.directory / "live.yaml")
                    wait_for("the outcome", lambda fault=fault: self.last_reload().get("outcome") == "refused"
                             and fault.split()[2].strip(",") in json.dumps(self.last_reload()))
                    self.assertEqual(self.outputs(), before)
                    self.assertFalse((self.out / "folder").exists())
        self.send(2)
        wait_for("another row", lambda: self.paths() == ["/1", "/2"])
        self.stop()


class Locks(Outputs):
    """One engine at a time writes to a file."""

    def test_two_pipelines_with_folders_of_their_own_and_one_file(self):
        """The second is told whose the file is, by any of its names."""
        self.live()
        self.begin()
        self.send(1)
        wait_for("a row", lambda: self.paths() == ["/1"])
        os.link(self.rows_file, self.out / "again.jsonl")
        text = (self.directory / "live.yaml").read_text().replace(SOCKET, "other.socket").replace("data_dir: data", "data_dir: other")
        for name in ("rows.jsonl", "again.jsonl"):
            before = self.outputs()
            other = self.write("other.yaml", text.replace("rows.jsonl", name))
            self.assert_exit(self.engine("run", other), FAILED, "rows: ", name, f"process {self.process.pid}")
            once = self.write("read.yaml", READ.replace("NODES", "").replace("data_dir: data", "data_dir: third").replace("rows.jsonl", name))
            self.assert_exit(self.engine("run", once), FAILED, "in use by another process")
            self.assertEqual(self.outputs(), before)
        self.send(2)
        wait_for("another row", lambda: self.paths() == ["/1", "/2"])
        self.stop()
        # Nothing is left of the lock, also after a kill.
        self.assert_exit(self.engine("run", self.write("read.yaml", READ.replace("NODES", "").replace("data_dir: data", "data_dir: third"))), OK)

    def test_a_file_that_takes_the_place_of_a_rotated_one_is_locked_too(self):
        """logrotate moves the file and sends SIGHUP."""
        self.live()
        self.begin()
        self.rows_file.rename(self.out / "rows.jsonl.1")
        self.process.send_signal(signal.SIGHUP)
        wait_for("the new file", self.rows_file.exists)
        other = self.write("other.yaml", READ.replace("NODES", "").replace("data_dir: data", "data_dir: other"))
        self.assert_exit(self.engine("run", other), FAILED, f"process {self.process.pid}")
        self.stop()

    def test_two_sinks_of_one_pipeline(self):
        """By one path, by two names of a file, by two names of a folder: seen before anything runs."""
        os.link(self.rows_file, self.out / "again.jsonl")
        (self.directory / "alias").symlink_to(self.out)
        for path in ("out/rows.jsonl", "out/again.jsonl", "alias/rows.jsonl"):
            nodes = f"  - {{ id: more, kind: sink.jsonl, from: requests, path: {path} }}"
            run = self.engine("validate", self.write("read.yaml", READ.replace("NODES", nodes)))
            self.assert_exit(run, REFUSED, "would overwrite", "is a file of `rows`")
        nodes = "  - { id: one, kind: sink.jsonl, from: requests, path: out/new.jsonl }\n" \
                "  - { id: two, kind: sink.jsonl, from: requests, path: alias/new.jsonl }"
        run = self.engine("validate", self.write("read.yaml", READ.replace("NODES", nodes)))
        self.assert_exit(run, REFUSED, "is a file of `one`")
        nodes = "  - { id: one, kind: sink.parquet, from: { t: requests } }\n  - { id: two, kind: sink.parquet, from: { t: requests } }"
        run = self.engine("validate", self.write("read.yaml", READ.replace("NODES", nodes)))
        self.assert_exit(run, REFUSED, "is a file of `one`")


class Recognised(Outputs):
    """A file is known after a crash by more than its number."""

    def test_a_file_that_reuses_the_number_of_a_removed_one_is_not_cut(self):
        """Its whole content stays, and rows follow it."""
        self.live()
        self.begin()
        self.send(*range(50))
        wait_for("rows", lambda: len(self.paths()) == 50)
        wait_for("the note", lambda: self.confirmed().get("bytes") == self.rows_file.stat().st_size)
        self.kill()
        number = self.rows_file.stat().st_ino
        self.rows_file.unlink()
        # The file system gives the number again; if it does not, this is another file all the same.
        other = "{\"of\":\"another program\"}\n" * 60_000
        self.rows_file.write_text(other)
        reused = self.rows_file.stat().st_ino == number
        self.begin()
        self.send(99)
        wait_for("the row", lambda: self.paths()[-1:] == ["/99"])
        self.stop()
        print(f"\n    the number was {'reused' if reused else 'another'} ", end="")
        self.assertTrue(self.rows_file.read_text().startswith(other))
        self.assertIn("nothing is cut", self.log.read_text())

    def test_what_was_not_confirmed_is_cut_also_of_a_copy(self):
        """As after any crash; the folder may have come from another machine."""
        self.live()
        self.begin()
        self.send(*range(50))
        wait_for("rows", lambda: len(self.paths()) == 50)
        wait_for("the note", lambda: self.confirmed().get("bytes") == self.rows_file.stat().st_size)
        self.kill()
        with self.rows_file.open("a") as file:
            file.write("{\"torn")
        shutil.copy(self.rows_file, self.out / "copy")
        (self.out / "copy").rename(self.rows_file)
        self.begin()
        self.send(99)
        wait_for("the row", lambda: self.paths()[-1:] == ["/99"])
        self.stop()
        self.assertEqual(self.paths(), [f"/{number}" for number in (*range(50), 99)])

    def confirmed(self) -> dict:
        """What is noted of the file."""
        note = self.data / "spool/confirmed/rows.json"
        return json.loads(note.read_text())["detail"] if note.exists() else {}


class Links(Outputs):
    """A symbolic link in the place of an output."""

    def test_a_link_is_refused_and_its_target_stays(self):
        """Unless the pipeline says that it is to be followed."""
        target = self.directory / "target"
        self.rows_file.rename(target)
        self.rows_file.symlink_to(target)
        for pipeline in (self.live(), self.write("read.yaml", READ.replace("NODES", ""))):
            self.assert_exit(self.engine("run", pipeline), FAILED, "rows.jsonl", "symbolic link", "follow_symlinks: true")
            self.assertEqual(target.read_text(), BEFORE)
        followed = READ.replace("NODES", "").replace("rows.jsonl }", "rows.jsonl, follow_symlinks: true }")
        self.assert_exit(self.engine("run", self.write("read.yaml", followed)), OK)
        self.assertEqual(self.paths(target), ["/1"])
        self.assertTrue(self.rows_file.is_symlink())

    def test_a_link_to_a_file_that_is_not_there_is_refused_too(self):
        """Nothing is made where it leads."""
        self.rows_file.unlink()
        self.rows_file.symlink_to(self.directory / "target")
        self.assert_exit(self.engine("run", self.write("read.yaml", READ.replace("NODES", ""))), FAILED, "symbolic link")
        self.assertFalse((self.directory / "target").exists())

    def test_a_tables_folder(self):
        """Of sink.parquet."""
        nodes = "  - { id: store, kind: sink.parquet, from: { requests: requests }OPTION }"
        (self.data / "requests").rename(self.directory / "elsewhere")
        (self.data / "requests").symlink_to(self.directory / "elsewhere")
        refused = READ.replace("NODES", nodes.replace("OPTION", ""))
        self.assert_exit(self.engine("run", self.write("read.yaml", refused)), FAILED, "store: ", "symbolic link")
        self.assertEqual(self.rows_file.read_text(), BEFORE)
        followed = READ.replace("NODES", nodes.replace("OPTION", ", follow_symlinks: true"))
        self.assert_exit(self.engine("run", self.write("read.yaml", followed)), OK)
        self.assertEqual(len(list((self.directory / "elsewhere").rglob("*-*.parquet"))), 2)


class Permissions(LiveCase):
    """Whatever the umask, files are of the owner, and the group reads them."""

    receives = Outputs.receives
    send = Outputs.send

    def made(self, umask: int, sections: str = "") -> dict[str, str]:
        """Files and folders of a run with that umask, and their permissions."""
        nodes = "  - { id: store, kind: sink.parquet, from: { requests: requests }, rotate: 1s }\n" \
                "  - { id: feedback, kind: source.feedback }"
        text = LIVE.replace("NODES", nodes).replace("SECTIONS", sections).replace("PORT", "0")
        self.write("live.yaml", text)
        self.starts += 1
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen([ENGINE, "run", self.directory / "live.yaml"], umask=umask, stderr=stderr,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.await_start()
        self.send(1)
        wait_for("a row", lambda: (self.directory / "out/rows.jsonl").read_text())
        self.stop()
        found = {}
        for root in (self.data, self.directory / "out"):
            for path in (root, *root.rglob("*")):
                name = str(path.relative_to(self.directory))
                # The lock is the engine's own: who can open it can hold it.
                if name != "data/lock":
                    found[name] = ("d" if path.is_dir() else "f") + oct(path.stat().st_mode & 0o777)[2:]
        shutil.rmtree(self.data)
        shutil.rmtree(self.directory / "out")
        return found

    def test_files_are_0640_and_folders_0750(self):
        """A spool, its notes, a table, lines, feedback."""
        for umask in (0o000, 0o022, 0o077):
            with self.subTest(oct(umask)):
                found = self.made(umask)
                self.assertGreater(len(found), 12, found)
                self.assertTrue(any(name.endswith(".parquet") for name in found), found)
                self.assertTrue(any("feedback" in name and name.endswith(".jsonl") for name in found), found)
                self.assertEqual({name: mode for name, mode in found.items() if mode not in ("d750", "f640")}, {})

    def test_both_can_be_chosen(self):
        """As for a socket, what lets everybody write is a warning."""
        found = self.made(0o022, "file_mode: 0600\ndir_mode: \"0700\"")
        self.assertEqual({name: mode for name, mode in found.items() if mode not in ("d700", "f600")}, {})
        found = self.made(0o077, "file_mode: \"0664\"\ndir_mode: \"0775\"")
        self.assertEqual({name: mode for name, mode in found.items() if mode not in ("d775", "f664")}, {})
        for sections, code, says in (("file_mode: \"0666\"", OK, "every user"), ("dir_mode: rwx", REFUSED, "not a permission"),
                                     ("file_mode: \"0400\"", REFUSED, "the engine itself")):
            text = LIVE.replace("NODES", "").replace("SECTIONS", sections).replace("PORT", "0")
            self.assert_exit(self.engine("validate", self.write("live.yaml", text)), code, says)
