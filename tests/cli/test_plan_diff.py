"""`--set`, `plan-diff` and `compare`: what a change of a pipeline is, and what it would have changed."""

import json
import shutil
from pathlib import Path

from tests.support import OK, PIPELINES, RECORDING, REFUSED, Case, demo, run_demo

# What prod.yaml needs to be valid anywhere.
VARIABLES = {"ASN_CSV": RECORDING / "asn.csv", "INTERFACE": "lo", "REFERENCE": PIPELINES / "reference"}


class Set(Case):
    """Options in place of the file's."""

    def test_an_option_that_is_wrong_is_shown_in_the_override(self):
        """With its place, a caret and the nearest name."""
        cases = {
            "corelated.window=30s": ["did you mean `correlated`?"],
            "correlated.widow=30s": ["--set correlated.widow=30s:1:12", "`window`"],
            "correlated.window=30x": ["--set correlated.window=30x:1:19", "^^^", "not a duration"],
            "correlated.orphans.emit_after=soon": ["not a duration"],
            "serve.listen=nowhere": ["--set serve.listen=nowhere:1:14", "not an address"],
            "tick": ["NODE.OPTION=VALUE"],
        }
        for given, says in cases.items():
            for command in ("validate", "run"):
                with self.subTest(f"{command} {given}"):
                    run = self.engine(command, PIPELINES / "demo.yaml", "--set", given)
                    self.assert_exit(run, REFUSED, *says)

    def test_values_are_yaml(self):
        """Single values, lists, mappings, sections."""
        values = ["correlated.window=30s", "packets.ports=[443]", "correlated.orphans={ emit_after: 1s }", "tick=1s",
                  "serve.hot_rows=5", "correlated.orphans.hello=false"]
        run = self.engine("validate", PIPELINES / "demo.yaml", *(word for value in values for word in ("--set", value)))
        self.assert_exit(run, OK)


class PlanDiff(Case):
    """Two pipelines."""

    def prod(self, *changes: tuple[str, str]) -> Path:
        """A copy of prod.yaml, with its files, in which texts are replaced."""
        directory = self.directory / "changed"
        shutil.copytree(PIPELINES, directory, ignore=shutil.ignore_patterns("recording", "tests"), dirs_exist_ok=True)
        text = (directory / "prod.yaml").read_text()
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new)
        (directory / "prod.yaml").write_text(text)
        return directory / "prod.yaml"

    def diff(self, new: Path, *arguments: str) -> str:
        """What is said of a new pipeline in place of prod.yaml."""
        run = self.engine("plan-diff", PIPELINES / "prod.yaml", new, *arguments, environment=VARIABLES)
        self.assert_exit(run, OK)
        return run.stdout

    def test_layout_is_no_difference(self):
        """Comments and flow style are not, for a person and for a program."""
        same = self.prod(("    window: 10s\n    keepalive_ttl: 120s\n", "    # longest wait\n    keepalive_ttl: 120s\n    window: '10s'\n"))
        self.assertEqual(self.diff(same), "no difference\n")
        shown = json.loads(self.diff(same, "--format", "json"))
        self.assertEqual((shown["started"], shown["rebuilt"], shown["stopped"]), ([], [], []))

    def test_a_longer_window_rebuilds_what_is_behind_the_spool(self):
        """The sources go on."""
        changed = self.prod(("window: 10s", "window: 30s"))
        shown = self.diff(changed)
        for line in ("1 node changed; 19 kept, 26 rebuilt", "window: 10s -> 30s", "because of correlated",
                     "goes on: packets, hellos, requests, model, said, fleets, final_scored, final_judged, final_everywhere, final_verdicts, "
                     "final_caught, final_said, final_kept, final_detections, recurrence, all_scores, detected_anomalies, campaign_rows, "
                     "final_store\n",
                     "rebuilt from the spool: correlated, labelled, systems, browsers, bots, known, features, clients, ruled, scored, "
                     "corrected, judged, everywhere, verdicts, caught, detections, rotating, ja4_rotation, posting, form_brute_force, slow, "
                     "slow_requests, final_clients, final_shared, final_ruled, store\n"):
            self.assertIn(line, shown)
        self.assertNotIn("because of final_ruled", shown, "which is durable")
        self.assertEqual(shown, self.diff(PIPELINES / "prod.yaml", "--set", "correlated.window=30s"))
        nodes = {node["id"]: node for node in json.loads(self.diff(changed, "--format", "json"))["nodes"]}
        change = {"path": "window", "old": "10s", "new": "30s"}
        self.assertEqual(nodes["correlated"]["changes"], [change])
        self.assertEqual(nodes["store"]["because"], ["known", "features", "verdicts", "detections"])

    def test_a_feature_in_a_library_is_named(self):
        """As an option of the node that reads the file."""
        changed = self.prod()
        library = changed.parent / "features/standard.yaml"
        library.write_text(library.read_text() + "\n- { name: one_more, expr: count(*) }\n")
        self.assertIn("features/standard.yaml.one_more: not set -> { expr: count(*), name: one_more }", self.diff(changed))

    def test_secrets_are_not_shown(self):
        """A value that comes from a variable is compared and hidden."""
        text = self.write("secret.yaml", """\
name: secret
nodes:
  - { id: in, kind: source.file, path: "${HIDDEN}", format: reqin_log }
  - { id: out, kind: sink.jsonl, from: in, path: out.jsonl }
""").read_text()
        other = self.write("other.yaml", text.replace("${HIDDEN}", "${OTHER}"))
        values = {"HIDDEN": RECORDING / "requests.jsonl", "OTHER": RECORDING / "truth.jsonl"}
        run = self.engine("plan-diff", self.directory / "secret.yaml", other, environment=values)
        self.assert_exit(run, OK)
        self.assertIn("path: ${…} -> ${…} (another)", run.stdout)
        self.assertNotIn("requests.jsonl", run.stdout)

    def test_a_file_that_is_refused(self):
        """Both are shown with what is wrong."""
        wrong = self.prod(("kind: correlate", "kind: corelate"))
        self.assert_exit(self.engine("plan-diff", wrong, self.directory / "nowhere.yaml", environment=VARIABLES),
                         REFUSED, "`correlate`", "nowhere.yaml")


class Compare(Case):
    """The tables of two runs."""

    def test_two_runs_of_one_pipeline_are_the_same(self):
        """All tables of the demo, by the keys that the files name."""
        again = self.directory / "again"
        self.assert_exit(run_demo(again), OK)
        run = self.engine("compare", demo(), again)
        self.assert_exit(run, OK)
        lines = run.stdout.splitlines()
        self.assertEqual([line.split(":")[0] for line in lines], ["detections", "features", "requests"])
        for line in lines:
            self.assertTrue(line.endswith("; no difference"), line)

    def test_what_another_option_would_have_changed(self):
        """Without a window no request has a fingerprint."""
        other = self.directory / "other"
        self.assert_exit(run_demo(other, "--set", "correlated.window=1ms", "--set", "correlated.keepalive_ttl=1ms"), OK)
        run = self.engine("compare", demo(), other, "--examples", "3")
        self.assert_exit(run, OK)
        self.assertRegex(run.stdout, r"(?m)^requests: (\d+) before, \1 after; 0 new, 0 gone, [1-9]\d* changed$")
        self.assertRegex(run.stdout, r"(?m)^      ja4: t1\S+ -> null$")
        self.assertRegex(run.stdout, r"(?m)^features: \d+ before, \d+ after; [1-9]\d* new, [1-9]\d* gone, ")
        run = self.engine("compare", demo(), other, "--format", "json", "--table", "requests", "--examples", "2")
        first, *rows = map(json.loads, run.stdout.splitlines())
        self.assertEqual((first["table"], first["new"], len(rows)), ("requests", 0, 2))
        self.assertEqual(set(rows[0]["key"]), {"time", "seq"})
        self.assertIn("before", rows[0]["columns"]["ja4"])

    def test_what_cannot_be_compared(self):
        """A directory that is not there, a table, a column of the key."""
        self.assert_exit(self.engine("compare", demo(), self.directory / "nowhere"), REFUSED, "nowhere")
        self.assert_exit(self.engine("compare", demo(), self.directory), REFUSED, "no table that both")
        self.assert_exit(self.engine("compare", demo(), demo(), "--table", "detection"), REFUSED, "did you mean `detections`?")
        self.assert_exit(self.engine("compare", demo(), demo(), "--key", "hots"), REFUSED, "`hots`")
        # What is not Parquet ends the comparison with a failure that names the file.
        broken = self.directory / "broken"
        shutil.copytree(demo(), broken)
        file = next((broken / "requests").rglob("*.parquet"))
        file.write_bytes(b"PAR1")
        self.assert_exit(self.engine("compare", demo(), broken, "--table", "requests"), 1, file.name)
