"""Campaigns of addresses from the lines of a log, against union-find."""

import hashlib
import ipaddress
import json
import math
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime

from tests.support import OK, REFUSED, Case, lines

SEED = 23
# Windows of ten minutes, counted from a whole hour, in seconds.
WINDOW = 600
START = 1_795_446_000
WINDOWS = 14
# For how many windows one counts, how many members share a value at most, and make a campaign.
LOOK_BACK, MAX_LINKED, MIN_MEMBERS = 6, 5, 3
RAISE_FROM = 5
# Most are rare. The hot ones are shared by more or fewer members than the most that link.
PATHS = ["/common"] * 20 + [f"/{n}" for n in range(400)] + [f"/hot{n % 8}" for n in range(150)]
PIPELINE = f"""name: campaigns
nodes:
  - {{ id: log, kind: source.file, path: access.log, format: reqin_log }}
  - id: features
    kind: aggregate
    from: log
    by: [src_ip, path, host]
    window: 10m
    features: [{{ name: hits, expr: count(*) }}]
  - id: live
    kind: detect.rules
    from: features
    rules: [{{ name: few, when: hits < 3, level: MEDIUM, reason: few }}, {{ name: one, when: hits < 2, level: HIGH, reason: one }}]
  - id: final
    kind: detect.rules
    from: features.final
    rules: [{{ name: few, when: hits < 3, level: MEDIUM, reason: few }}, {{ name: one, when: hits < 2, level: HIGH, reason: one }}]
  - id: campaigns
    kind: campaigns
    from: live
    link: [[path], [host, "ip_prefix(src_ip, 24, 64)"]]
    where: "path <> '/common'"
    max_linked: {MAX_LINKED}
    min_members: {MIN_MEMBERS}
    look_back: 1h
  - id: known
    kind: campaigns
    from: final
    link: [[path], [host, "ip_prefix(src_ip, 24, 64)"]]
    where: "path <> '/common'"
    max_linked: {MAX_LINKED}
    look_back: 1h
  - {{ id: out, kind: sink.jsonl, from: campaigns, path: changes.out, mode: changes }}
  - {{ id: joined, kind: sink.jsonl, from: campaigns.joined, path: joined.out, mode: changes }}
  - {{ id: settled, kind: sink.jsonl, from: campaigns.joined, path: settled.out }}
  - {{ id: then, kind: sink.jsonl, from: known.joined, path: then.out }}
"""

# A detection: address, path, host, window.
Detection = tuple[str, str, str, int]


def window(text: str) -> int:
    """A time as the number of its window."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() - START) // WINDOW


def components(detections: list[Detection]) -> dict[str, frozenset[str]]:
    """The campaign of each address that is in one, by its members."""
    detections = [detection for detection in detections if detection[1] != "/common"]
    sharing = defaultdict(set)
    for address, path, host, _ in detections:
        sharing["path", path].add(address)
        sharing["net", host, address.rsplit(".", 1)[0]].add(address)
    parents = {detection[0]: detection[0] for detection in detections}

    def find(address: str) -> str:
        while parents[address] != address:
            address = parents[address]
        return address

    for members in sharing.values():
        if len(members) <= MAX_LINKED:
            first = find(min(members))
            for member in members:
                parents[find(member)] = first
    found = defaultdict(set)
    for address in parents:
        found[find(address)].add(address)
    return {member: frozenset(of) for of in found.values() if len(of) >= MIN_MEMBERS for member in of}


def number(members: frozenset[str], detections: list[Detection]) -> int:
    """The id of a campaign: that of the member that was seen first, of equals the least address."""
    first = defaultdict(lambda: WINDOWS)
    for address, path, _, at in detections:
        if path != "/common":
            first[address] = min(first[address], at)
    oldest = min(members, key=lambda member: (first[member], ipaddress.ip_address(member)))
    return int.from_bytes(hashlib.sha256(oldest.encode()).digest()[:8]) >> 33


def joined(of: list[tuple[Detection, str]], detections: list[Detection]) -> list[tuple]:
    """Rows with the campaigns of these detections."""
    campaigns = components(detections)
    rows = []
    for detection, level in of:
        members = campaigns.get(detection[0], frozenset())
        raised = level == "HIGH" and len(members) >= RAISE_FROM
        campaign = number(members, detections) if members else -1
        rows.append((*detection, "CRITICAL" if raised else level, campaign, len(members)))
    return rows


def described(row: dict) -> tuple:
    """A row that the engine joined, as `joined` has it."""
    detection = (row["src_ip"], row["path"], row["host"], window(row["window_start"]))
    return (*detection, row["threat_level"], row["campaign_id"], row["campaign_members"])


class Campaigns(Case):
    """Detections of a relation and of a stream."""

    def make(self) -> dict[Detection, str]:
        """Writes a log; the detections that it comes to, with their levels."""
        rng = random.Random(SEED)
        hits: Counter[Detection] = Counter()
        log = []
        for at in range(WINDOWS):
            for client in rng.sample(range(48), 30):
                address = f"192.0.{client % 12}.{client}"
                for _ in range(rng.choice([1, 1, 2])):
                    path = rng.choice(PATHS)
                    host = f"h{rng.randrange(40)}.example"
                    for _ in range(rng.choice([1, 1, 2, 3, 5])):
                        hits[address, path, host, at] += 1
                        time = START + at * WINDOW + rng.randrange(WINDOW)
                        log.append((time, {"timestamp": time * 10**9, "src_ip": address, "path": path, "host": host}))
        log.sort(key=lambda line: line[0])
        self.write("access.log", "".join(json.dumps(line) + "\n" for _, line in log))
        return {detection: "HIGH" if count < 2 else "MEDIUM" for detection, count in hits.items() if count < 3}

    def test_campaigns_are_those_of_union_find(self) -> None:
        """Whatever the number of workers."""
        levels = self.make()
        last = max(detection[3] for detection in levels)

        def between(first: int, end: int) -> list[Detection]:
            return [detection for detection in levels if first <= detection[3] <= end]

        # A window counts until it is six windows old. What is not over at the last detection stays.
        standing = between(last + 2 - LOOK_BACK, last)
        corrected, then = [], []
        for at in range(WINDOWS):
            rows = [(detection, level) for detection, level in levels.items() if detection[3] == at]
            ends = at + LOOK_BACK - 1
            corrected += joined(rows, between(at, ends) if ends < last + 1 else standing)
            then += joined(rows, between(at + 2 - LOOK_BACK, at))
        self.assertGreater(len({row[5] for row in corrected}), 10, "there is something to see")
        self.assertTrue({-1} < {row[5] for row in then} and "CRITICAL" in {row[4] for row in then})
        pipeline = self.write("campaigns.yaml", PIPELINE)
        for workers in (1, 4):
            run = self.engine("run", "-q", "--workers", workers, pipeline)
            self.assert_exit(run, OK)
            self.check_campaigns(standing, levels)
            rows = Counter()
            for row in lines(self.directory / "joined.out"):
                rows[described(row)] += row["diff"]
            self.assert_same_rows(rows.elements(), corrected, f"{workers} workers, as they stand")
            settled = [described(row) for row in lines(self.directory / "settled.out")]
            self.assert_same_rows(settled, corrected, f"{workers} workers, settled")
            known = [described(row) for row in lines(self.directory / "then.out")]
            self.assert_same_rows(known, then, f"{workers} workers, what was known")

    def check_campaigns(self, standing: list[Detection], levels: dict[Detection, str]) -> None:
        """Compares the rows of campaigns that stand in the end."""
        sums: Counter[str] = Counter()
        for row in lines(self.directory / "changes.out"):
            diff = row.pop("diff")
            sums[json.dumps(row, sort_keys=True)] += diff
        self.assertTrue(all(count in (0, 1) for count in sums.values()))
        rows = {row["campaign_id"]: row for row in (json.loads(text) for text, count in sums.items() if count)}
        campaigns = set(components(standing).values())
        self.assertGreater(len(campaigns), 1)
        self.assertEqual(sorted(rows), sorted(number(members, standing) for members in campaigns))
        for members in campaigns:
            row = rows[number(members, standing)]
            of = [d for d in standing if d[0] in members and d[1] != "/common"]
            found = (row["members"], row["networks"], row["detections"], window(row["first_seen"]), window(row["last_seen"]))
            networks = {member.rsplit(".", 1)[0] for member in members}
            windows = [d[3] for d in of]
            self.assertEqual(found, (len(members), len(networks), len(of), min(windows), max(windows)))
            self.assertEqual(row["worst_threat_level"], "HIGH" if "HIGH" in {levels[d] for d in of} else "MEDIUM")
            self.assertNotIn("asns", row)
            self.assertAlmostEqual(row["score"], len(members) * row["density"] / math.log2(2))
            self.assertLessEqual(set(row["sample_members"].split(", ")), members)
            self.assertRegex(row["linked_by"], r"^(path|host) = .* \(\d members\)")
            self.assertLessEqual(2 / len(members), row["density"])
            self.assertLessEqual(row["density"], 1)

    def test_wrong_options_are_refused(self) -> None:
        """At their place."""
        self.write("access.log", "")
        cases = {
            "link: [[pth]]": "no column `pth`",
            "link: []": "`link` is a list of links",
            "link: [[path], []]": "`link` is a list of links",
            "link: [[path]], min_members: 1": "`min_members` is at least 2",
            "link: [[path]], max_linked: 1": "`max_linked` is at least 2",
            "link: [[path]], max_rows: 0": "`max_rows` is at least 1",
            "link: [[path]], member: ja5": "no column `ja5`",
            "link: [[path]], where: hits": "a condition is true or false",
            "link: [[path]], look_back: 1m": "`granularity` is at most `look_back`",
            "link: [[path]], asn: org": "no column `org`",
            "link: [[path]], score: path": "`path` is Utf8, which cannot be used here",
        }
        head = PIPELINE.partition("  - id: campaigns\n")[0]
        for options, says in cases.items():
            text = f"{head}  - {{ id: c, kind: campaigns, from: live, {options} }}\n"
            text += "  - { id: o, kind: sink.jsonl, from: c, path: o.out }\n"
            self.assert_exit(self.engine("validate", self.write("wrong.yaml", text)), REFUSED, says)
