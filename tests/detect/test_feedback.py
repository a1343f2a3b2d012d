"""What analysts say of detections: it reaches whatever is made of them, survives a kill right behind the answer, and a replay."""

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from collections import Counter

from tests.support import FAILED, LIMIT_S, OK, REFUSED, Case, get, lines, served, sql, start, wait_for

RULES = "rules: [{ name: many, when: hits >= 3, level: HIGH, reason: many }]"
SOURCES = """\
name: feedback
data_dir: data
nodes:
  - { id: requests, kind: source.unix_socket, path: requests.socket, format: reqin_log, lateness: 200ms }
  - { id: said, kind: source.feedback }
"""
VERDICT = "{ name: verdict, expr: \"case when feedback = 'false_positive' then 'NORMAL' else threat_level end\" }"
# Open windows: rows that are corrected all the time.
OPEN = SOURCES + f"""\
  - {{ id: groups, kind: aggregate, from: requests, by: [src_ip, host], window: 1h, features: [{{ name: hits, expr: count(*) }}] }}
  - {{ id: found, kind: detect.rules, from: groups, {RULES} }}
  - {{ id: labelled, kind: feedback, from: {{ rows: found, feedback: said }} }}
  - {{ id: verdicts, kind: derive, from: labelled, columns: [{VERDICT}] }}
  - {{ id: changes, kind: sink.jsonl, from: verdicts, path: data/changes.jsonl, mode: changes }}
serve: {{ listen: 127.0.0.1:0, tables: {{ verdicts: verdicts, said: said }} }}
"""
# Windows that have ended: their rows are looked back to by what learns from them and counts them.
ENDED = SOURCES + f"""\
  - {{ id: groups, kind: aggregate, from: requests, by: [src_ip, host], window: 1s, features: [{{ name: hits, expr: count(*) }}] }}
  - {{ id: found, kind: detect.rules, from: groups.final, {RULES} }}
  - {{ id: labelled, kind: feedback, from: {{ rows: found, feedback: said }}, look_back: LOOK_BACK }}
  - {{ id: bots, kind: filter, from: labelled, where: "feedback is distinct from 'false_positive'" }}
  - {{ id: recurrence, kind: recurrence, from: bots, look_back: 7d }}
  - id: model
    kind: train.forest
    from: labelled
    model: model.json
    baseline: "feedback is distinct from 'true_positive'"
    corrections: true
  - {{ id: rows, kind: sink.jsonl, from: labelled, path: data/rows.jsonl }}
serve: {{ listen: 127.0.0.1:0, tables: {{ recurrence: recurrence, bots: bots, labelled: labelled }} }}
"""
BOT, OTHER = "192.0.2.7", "192.0.2.8"


class Feedback(Case):
    """One engine, one socket of requests."""

    def begin(self, pipeline: str) -> None:
        """Starts a pipeline, or starts it again."""
        self.pipeline = self.write("p.yaml", pipeline)
        self.log = self.directory / "log"
        self.process = start("run", "--no-watch", self.pipeline, log=self.log)
        self.addCleanup(self.end)
        self.base = served(self.log)
        wait_for("the socket", self.send_nothing)

    def end(self, how: int = signal.SIGKILL) -> None:
        """Ends the engine, if it runs."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(LIMIT_S)
        if how == signal.SIGTERM:
            self.assertEqual(code, OK, self.log.read_text())

    def send_nothing(self) -> bool:
        """Whether somebody listens."""
        self.assertIsNone(self.process.poll(), self.log.read_text())
        try:
            self.send(0, BOT)
        except OSError:
            return False
        return True

    def send(self, count: int, address: str, host: str = "shop.example") -> None:
        """So many requests of a client, now: of one second, so that they are in one window."""
        if time.time() % 1 > 0.5:
            time.sleep(1 - time.time() % 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self.directory / "requests.socket"))
            for _ in range(count):
                row = {"timestamp": time.time_ns(), "src_ip": address, "host": host, "path": "/"}
                sender.send(json.dumps(row).encode())

    def say(self, label: str, code: int = 200, **about: str) -> dict:
        """`POST /api/feedback`; the answer."""
        return self.post(json.dumps({"label": label, "who": "ada", **about}).encode(), code)

    def post(self, body: bytes, code: int, kind: str = "application/json", **headers: str) -> dict:
        """Any body."""
        headers = {"Content-Type": kind, **headers}
        request = urllib.request.Request(f"{self.base}/api/feedback", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
        self.assertEqual(status, code, text)
        return json.loads(text)

    def verdicts(self) -> dict[tuple[str, str], tuple]:
        """What the table says of each client now; one row each."""
        rows = sql(self.base, "select src_ip, host, verdict, feedback, feedback_by from verdicts")
        found = {(row["src_ip"], row["host"]): (row["verdict"], row["feedback"], row["feedback_by"]) for row in rows}
        self.assertEqual(len(found), len(rows))
        return found

    def await_verdict(self, expected: tuple, host: str = "shop.example") -> float:
        """Waits until the bot has this verdict; the seconds that took."""
        begin = time.monotonic()
        try:
            wait_for("a verdict", lambda: self.verdicts().get((BOT, host)) == expected)
        except TimeoutError:
            self.fail(f"{self.verdicts()} {get(f'{self.base}/status')[1]}")
        return time.monotonic() - begin

    def stayed(self) -> list[dict]:
        """The complete lines of the file of rows that stay."""
        path = self.directory / "data/rows.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def command(self, *arguments: object, code: int = OK, says: str = "") -> str:
        """`ja4-engine feedback`."""
        run = self.engine("feedback", "--url", self.base, *arguments, environment={"USER": "grace"})
        self.assert_exit(run, code, says)
        return run.stdout

    def test_a_verdict_flips_and_an_undo_brings_it_back(self) -> None:
        """By API and command; of several words the most specific counts."""
        self.begin(OPEN)
        found, cleared = ("HIGH", None, None), ("NORMAL", "false_positive", "ada")
        self.send(5, BOT)
        self.send(5, BOT, "cdn.example")
        self.send(5, OTHER)
        self.await_verdict(found)
        self.await_verdict(found, "cdn.example")
        answer = self.say("false_positive", src_ip=BOT, note="our monitoring")
        seconds = self.await_verdict(cleared)
        self.assertLess(seconds, 10, "two ticks are 200 ms; the rest is this machine")
        self.await_verdict(cleared, "cdn.example")
        self.assertEqual(self.verdicts()[OTHER, "shop.example"], found, "nobody else's")
        self.assertEqual((answer["src_ip"], answer["who"], answer["note"]), (BOT, "ada", "our monitoring"))
        self.send(5, BOT)
        wait_for("new rows", lambda: sql(self.base, f"select hits from verdicts where src_ip = '{BOT}' and hits = 10"))
        self.await_verdict(cleared)
        out = self.command(BOT, "--host", "cdn.example", "--label", "true-positive", "--note", "a bot there")
        self.assertIn("true_positive by grace", out)
        self.await_verdict(("HIGH", "true_positive", "grace"), "cdn.example")
        self.await_verdict(cleared)
        self.assertEqual(len(self.command().splitlines()), 2)
        self.assertEqual(len(self.command("--host", "cdn.example").splitlines()), 1)
        self.command("198.51.100.1", "--label", "undo", code=FAILED, says="nothing is in effect")
        self.command(BOT, "--host", "cdn.example", "--label", "undo")
        self.await_verdict(cleared, "cdn.example")
        self.say("undo", src_ip=BOT)
        self.await_verdict(found)
        self.await_verdict(found, "cdn.example")
        self.assertEqual(json.loads(get(f"{self.base}/api/feedback")[1]), [])
        said = sql(self.base, "select label, who from said where not again order by seq")
        self.assertEqual([(row["label"], row["who"]) for row in said], [
            ("false_positive", "ada"), ("true_positive", "grace"), (None, "grace"), (None, "ada")])
        self.end(signal.SIGTERM)
        # Each change takes back what was there before.
        sums: Counter[str] = Counter()
        for row in lines(self.directory / "data/changes.jsonl"):
            diff = row.pop("diff")
            sums[json.dumps(row, sort_keys=True)] += diff
            self.assertIn(sums[json.dumps(row, sort_keys=True)], (0, 1))
        self.assertEqual(sum(sums.values()), 3)

    def test_what_was_answered_survives_a_kill(self) -> None:
        """Right behind the answer; an undo too."""
        self.begin(OPEN)
        self.send(5, BOT)
        self.await_verdict(("HIGH", None, None))
        for label, expected in (
            ("false_positive", ("NORMAL", "false_positive", "ada")), ("true_positive", ("HIGH", "true_positive", "ada")),
            ("undo", ("HIGH", None, None)), ("false_positive", ("NORMAL", "false_positive", "ada")),
        ):
            with self.subTest(label):
                self.say(label, src_ip=BOT)
                self.end()
                self.begin(OPEN)
                self.await_verdict(expected)
        said = sql(self.base, "select distinct id, label from said order by id")
        self.assertEqual(said[-1]["label"], "false_positive")
        self.end(signal.SIGTERM)

    def test_ended_windows_are_corrected_in_all_that_is_made_of_them(self) -> None:
        """Baseline, recurrence and tables; a replay gives the same rows."""
        self.begin(ENDED.replace("LOOK_BACK", "15s"))

        def baseline() -> int:
            nodes = json.loads(get(f"{self.base}/status")[1])["nodes"]
            return next(node["events"].get("baseline_rows", 0) for node in nodes if node["id"] == "model")

        def recurrence() -> set[str]:
            return {row["src_ip"] for row in sql(self.base, "select src_ip from recurrence")}

        self.send(5, BOT)
        self.send(5, OTHER)
        wait_for("both", lambda: recurrence() == {BOT, OTHER} and baseline() == 2)
        self.say("false_positive", src_ip=BOT)
        wait_for("one", lambda: recurrence() == {OTHER} and baseline() == 2)
        self.assertEqual([row["src_ip"] for row in sql(self.base, "select src_ip from bots")], [OTHER])
        self.say("true_positive", src_ip=OTHER)
        wait_for("no bot learnt from", lambda: recurrence() == {OTHER} and baseline() == 1)
        self.say("undo", src_ip=OTHER)
        wait_for("both learnt from", lambda: baseline() == 2)
        self.say("undo", src_ip=BOT)
        wait_for("both again", lambda: recurrence() == {BOT, OTHER})
        # Rows that stay have what was said when their time had come.
        self.say("true_positive", host="shop.example")
        for _ in range(3):
            self.send(3, BOT)
            time.sleep(1.1)
        self.say("false_positive", src_ip=BOT)
        wait_for("rows that stay", lambda: len(self.stayed()) >= 5, pause_s=0.2)
        time.sleep(0.5)
        self.end(signal.SIGTERM)
        live = [json.dumps(row) for row in self.stayed()]
        labels = Counter(json.loads(row).get("feedback") for row in live)
        self.assertEqual((labels["false_positive"], labels["true_positive"] > 0), (labels.total() - labels["true_positive"], True))
        for workers in (1, 3):
            out = self.directory / f"replay-{workers}"
            run = self.engine("replay", "--workers", workers, self.pipeline, "--data-dir", out)
            self.assert_exit(run, OK)
            again = [json.dumps(row) for row in lines(next(out.rglob("rows.jsonl")))]
            self.assert_same_rows(again, live, f"{workers} workers")

    def test_what_is_no_feedback_is_refused(self) -> None:
        """With a reason; nothing changes, and the engine goes on."""
        self.begin(OPEN)
        self.send(5, BOT)
        self.await_verdict(("HIGH", None, None))
        for body, code, says in (
            (b"", 400, "not JSON"), (b"{", 400, "not JSON"), (b"[]", 400, "a JSON object"), (b"\xff\xfe", 400, "not JSON"),
            (b"[" * 10_000, 400, "not JSON"), (b'{"label":"undo","who":"' + b"x" * 20_000 + b'","host":"h"}', 413, "at most"),
            (b'{"label":"undo","who":"ada"}', 400, "whom it is about"),
            (b'{"label":"bot","who":"ada","host":"h"}', 400, "`label` is"),
            (b'{"label":"undo","who":"a\\u001b[2J","host":"h"}', 400, "control characters"),
            (b'{"label":"undo","who":"ada","host":"h"}', 400, "nothing is in effect"),
        ):
            self.assertIn(says, self.post(body, code)["error"], body[:40])
        self.assertIn("application/json", self.post(b"{}", 415, "text/plain")["error"])
        right = json.dumps({"label": "false_positive", "who": "ada", "src_ip": BOT}).encode()
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            self.assertIn("another site", self.post(right, 403, **headers)["error"])
        self.assertEqual(self.verdicts()[BOT, "shop.example"], ("HIGH", None, None))
        self.end(signal.SIGTERM)

    def test_a_pipeline_without_the_source_says_so(self) -> None:
        """And one whose inputs do not fit, before it runs."""
        self.begin(OPEN.replace("  - { id: said, kind: source.feedback }\n", "").replace(
            "{ id: labelled, kind: feedback, from: { rows: found, feedback: said } }",
            "{ id: labelled, kind: derive, from: found, columns: [{ name: feedback, expr: \"''\" }] }",
        ).replace(", said: said", ""))
        self.assertIn("no source of this pipeline takes `feedback`", self.say("undo", 404, src_ip=BOT)["error"])
        self.command(BOT, "--label", "undo", code=FAILED, says="source.feedback")
        self.end(signal.SIGTERM)
        for change, says in (
            (("feedback: said }", "feedback: requests }"), "as `source.feedback` gives it"),
            (("by: [src_ip, host]", "by: [path]"), "none of the columns src_ip, host, ja4"),
            (("- { id: verdicts, kind: derive, from: labelled, columns: [",
              "- { id: twice, kind: feedback, from: { rows: labelled, feedback: said } }\n"
              "  - { id: verdicts, kind: derive, from: labelled, columns: ["), "a column `feedback` already"),
        ):
            path = self.write("wrong.yaml", OPEN.replace(*change))
            self.assert_exit(self.engine("validate", path), REFUSED, says)
        two = self.write("two.yaml", OPEN.replace("kind: source.feedback }", "kind: source.feedback }\n  - { id: more, kind: source.feedback }"))
        self.assert_exit(self.engine("run", two), FAILED, "another node takes `feedback` already")
