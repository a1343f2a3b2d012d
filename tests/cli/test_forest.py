"""An isolation forest: trained on the features of a log, then judging another one."""

import json
import random

from tests.support import OK, REFUSED, Case, lines

SEED = 17
HOUR = 3600
# A whole hour, in seconds.
START = 1_795_446_000
FEATURES = """
      - { name: hits, expr: count(*) }
      - { name: paths, expr: count(distinct path) }
      - { name: posts, expr: "1.0 * count(*) filter (where method = 'POST') / hits" }
      - { name: errors, expr: "1.0 * count(*) filter (where status_code >= 400) / hits" }"""
SOURCE = f"""name: forest
data_dir: data
nodes:
  - {{ id: log, kind: source.file, path: access.log, format: reqin_log }}
  - id: features
    kind: aggregate
    from: log
    by: [src_ip]
    window: 1h
    features:{FEATURES}
"""
TRAIN = SOURCE + "  - { id: model, kind: train.forest, from: features.final, model: model.json, min_rows: 100 }\n"
JUDGE = SOURCE + """  - { id: judged, kind: detect.forest, from: features.final, model: model.json }
  - { id: out, kind: sink.jsonl, from: judged, path: judged.out }
"""


def log(seed: int, hours: int, scanners: int) -> str:
    """Requests of people, and of a few that look for what is not there."""
    rng = random.Random(seed)
    rows = []
    for hour in range(hours):
        for client in range(60):
            for _ in range(rng.randrange(3, 40)):
                post, missing = rng.random() < 0.1, rng.random() < 0.05
                rows.append((hour, f"192.0.2.{client}", "POST" if post else "GET", f"/p{rng.randrange(30)}", 404 if missing else 200))
        for scanner in range(scanners):
            rows += [(hour, f"198.51.100.{scanner}", "GET", f"/x{n}", 404) for n in range(rng.randrange(300, 900))]
    timed = sorted((START + row[0] * HOUR + rng.randrange(HOUR), row) for row in rows)
    return "".join(
        json.dumps({"timestamp": time * 10**9, "src_ip": row[1], "method": row[2], "path": row[3], "status_code": row[4]}) + "\n"
        for time, row in timed
    )


class Forest(Case):
    """Two pipelines over generated logs."""

    def train(self, *arguments: object) -> str:
        """The model of a run over the log."""
        run = self.engine("run", "-q", *arguments, self.write("train.yaml", TRAIN))
        self.assert_exit(run, OK)
        return (self.directory / "model.json").read_text()

    def test_what_is_not_like_the_training_is_found(self) -> None:
        """By a model that is the same at any number of workers; the reason names what is unusual."""
        self.write("access.log", log(SEED, hours=6, scanners=0))
        models = {self.train("--workers", workers) for workers in (1, 4)}
        self.assertEqual(len(models), 1)
        self.assertEqual(len(list(self.directory.glob("model-*Z.json"))), 1, "a copy by the time of its last row")
        self.write("access.log", log(SEED + 1, hours=2, scanners=4))
        self.assert_exit(self.engine("run", "-q", self.write("judge.yaml", JUDGE)), OK)
        rows = lines(self.directory / "judged.out")
        scanners = [row for row in rows if row["src_ip"].startswith("198.")]
        people = [row for row in rows if row["src_ip"].startswith("192.")]
        self.assertEqual((len(scanners), len(people)), (8, 120))
        self.assertLess(max(row["anomaly_score"] for row in scanners), min(row["anomaly_score"] for row in people))
        self.assertNotIn("NORMAL", {row["anomaly_level"] for row in scanners})
        self.assertGreater(sum(row["anomaly_level"] == "NORMAL" for row in people), 110)
        for row in scanners:
            self.assertRegex(row["anomaly_reason"], r"(hits|paths|errors) = [\d.]+ \(usually [\d.]+, [\d.]+ deviations above\)")
            self.assertRegex(row["model_name"], r"^forest-1-\d{8}T\d{6}Z$")

    def test_without_a_model_there_is_no_score(self) -> None:
        """And too few rows make none, which is said."""
        self.write("access.log", log(SEED, hours=1, scanners=1))
        self.assert_exit(self.engine("run", "-q", self.write("judge.yaml", JUDGE)), OK)
        rows = lines(self.directory / "judged.out")
        self.assertEqual(len(rows), 61)
        self.assertTrue(all(row.get("anomaly_score") is None and row.get("model_name") is None for row in rows))
        run = self.engine("run", self.write("train.yaml", TRAIN))
        self.assert_exit(run, OK, "the baseline has 61 rows of the 100 that a model needs: rules alone decide")
        self.assertFalse((self.directory / "model.json").exists())

    def test_a_model_that_is_none_is_refused(self) -> None:
        """With its place; wrong options too."""
        self.write("access.log", "")
        self.write("model.json", '{"format": 1, "about": {')
        self.assert_exit(self.engine("validate", self.write("judge.yaml", JUDGE)), REFUSED, "model.json", "line 1")
        for option, says in {"trees: 0": "trees must be 1 to", "contamination: 0.9": "contamination", "features: [src_ip]": "src_ip"}.items():
            wrong = TRAIN.replace("min_rows: 100", option)
            self.assert_exit(self.engine("validate", self.write("train.yaml", wrong)), REFUSED, says)
