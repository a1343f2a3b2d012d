"""The second stage of features: ranks, shares, rarity and drift against SQLite, at any number of workers and on a replay."""

import json
import math
import random
import sqlite3
from collections import Counter
from collections.abc import Iterable

from tests.live_engine import LiveCase, pipeline
from tests.support import OK, PIPELINES, REFUSED, Case, lines

SEED = 17
HOURS, HOUR, LOOK_BACK = 8, 3600, 6
CLIENTS = 150
# A whole hour, in seconds.
START = 1_795_446_000
TEXTS = ("host", "src_ip", "ja4", "path", "user_agent", "family", "major", "asn", "country", "header_order", "syn")
FEATURES = """
      - { name: hits, expr: count(*) }
      - { name: uniq_paths, expr: count(distinct path) }
      - { name: h2h3_ratio, expr: 1.0 * count(*) filter (where h2 = 1) / hits }
      - { name: browser_ratio, expr: 1.0 * count(*) filter (where browser = 1) / hits }
      - { name: user_agent, expr: min(user_agent) }
      - { name: ua_family, expr: min(family) }
      - { name: ua_major, expr: min(major) }
      - { name: tls_identity, expr: "min(concat(substr(ja4, 1, 6), '_', split_part(ja4, '_', 2)))" }
      - { name: asn_number, expr: min(asn) }
      - { name: country_code, expr: min(country) }
      - { name: header_order, expr: min(header_order) }
      - { name: syn_fp, expr: min(syn) }"""
PIPELINE = f"""name: peers
data_dir: data
tick: 10s
nodes:
  - id: log
    kind: source.file
    path: access.jsonl
    time_unit: s
    columns: {{ time: time, h2: integer, browser: integer, {", ".join(f"{name}: text" for name in TEXTS)} }}
  - id: features
    kind: aggregate
    from: log
    by: [host, src_ip, ja4]
    window: 1h
    features:{FEATURES}
  - {{ id: ranked, kind: peers, from: features.final, by: [window_start], columns: {PIPELINES}/features/peers.yaml }}
  - id: drifted
    kind: peers
    from: features.final
    by: [src_ip, ua_family, host]
    look_back: {LOOK_BACK}h
    columns: {PIPELINES}/features/drift.yaml
  - id: verdicts
    kind: derive
    from: features
    columns: [{{ name: verdict, expr: "case when hits > 6 then 'CRITICAL' when hits > 3 then 'MEDIUM' else 'NORMAL' end" }}]
  - {{ id: clients, kind: peers, from: verdicts, by: [window_start, src_ip], columns: {PIPELINES}/features/client.yaml }}
  - {{ id: finals_file, kind: sink.jsonl, from: features.final, path: finals.out }}
  - {{ id: ranked_file, kind: sink.jsonl, from: ranked, path: ranked.out }}
  - {{ id: drifted_file, kind: sink.jsonl, from: drifted, path: drifted.out }}
  - {{ id: clients_file, kind: sink.jsonl, from: clients, path: clients.out }}
  - {{ id: changes_file, kind: sink.jsonl, from: clients, path: changes.out, mode: changes }}
  - {{ id: late_file, kind: sink.jsonl, from: features.late, path: late.out }}
"""

# Each column recomputed from the rows of the same window, `g`, without a window function.
OF_JA4 = """
  with of_ja4 as (
    select window_start, ja4, count(distinct src_ip) ips, sum(hits) reqs, count(distinct user_agent) uas, sum(uniq_paths) paths,
      sum(h2h3_ratio * hits) / sum(hits) h2, sum(browser_ratio * hits) / sum(hits) browser,
      sum(case when header_order is not null then hits end) ordered
    from g where ja4 is not null group by window_start, ja4),
  whole as (select window_start, count(distinct ja4) ja4s, count(distinct src_ip) ips, count(syn_fp) syns from g group by 1),
  asn as (select window_start, ja4, asn_number, sum(hits) reqs from g group by 1, 2, 3),
  country as (select window_start, ja4, country_code, sum(hits) reqs from g group by 1, 2, 3)
  select g.window_start, g.host, g.src_ip, g.ja4,
    (select count(distinct x.ja4) from g x where x.window_start = g.window_start and x.host = g.host and x.src_ip = g.src_ip)
      ja4_per_ip,
    whole.ja4s ja4_count, j.ips ja4_ips, j.reqs ja4_reqs, j.uas ja4_uas, j.paths ja4_paths,
    j.ips <= 2 and j.ips <= 0.01 * whole.ips is_rare_ja4,
    (select count(*) from of_ja4 x where x.window_start = g.window_start and x.ips <= j.ips) * 1.0 / whole.ja4s * (j.ips > 0)
      ips_quantile,
    (select count(*) from of_ja4 x where x.window_start = g.window_start and x.reqs <= j.reqs) * 1.0 / whole.ja4s * (j.ips > 0)
      reqs_quantile,
    case when j.ips then 1 + (select count(*) from of_ja4 x where x.window_start = g.window_start and x.ips > j.ips) end ips_rank,
    case when j.ips then 1 + (select count(*) from of_ja4 x where x.window_start = g.window_start and x.reqs > j.reqs) end
      reqs_rank,
    case when j.ips then 1 + (select count(*) from of_ja4 x where x.window_start = g.window_start and x.uas > j.uas) end uas_rank,
    case when j.ips then 1 + (select count(*) from of_ja4 x where x.window_start = g.window_start and x.paths > j.paths) end
      paths_rank,
    (select x.reqs from asn x where x.window_start = g.window_start and x.ja4 = g.ja4 and x.asn_number is g.asn_number)
      * 1.0 / j.reqs ja4_asn_share,
    (select max(x.reqs) from asn x where x.window_start = g.window_start and x.ja4 = g.ja4) * 1.0 / j.reqs ja4_asn_concentration,
    (select x.reqs from country x where x.window_start = g.window_start and x.ja4 = g.ja4 and x.country_code is g.country_code)
      * 1.0 / j.reqs ja4_country_share,
    (select max(x.reqs) from country x where x.window_start = g.window_start and x.ja4 = g.ja4) * 1.0 / j.reqs
      ja4_country_concentration,
    j.h2 ja4_h2h3_ratio, j.browser ja4_browser_ratio,
    1.0 - (select sum(x.hits) from g x where x.window_start = g.window_start and x.ja4 = g.ja4
      and x.header_order = g.header_order) * 1.0 / j.ordered header_order_rarity,
    - log_2((select count(*) from g x where x.window_start = g.window_start and x.syn_fp = g.syn_fp) * 1.0 / whole.syns)
      syn_fp_rarity
  from g join whole using (window_start)
    left join of_ja4 j on j.window_start = g.window_start and j.ja4 = g.ja4
"""
# A row is computed when its window is over, a tick later: windows are its peers that began less than LOOK_BACK before.
DRIFT = f"""
  select window_start, host, src_ip, ja4, windows drift_windows,
    case when windows >= 3 then ja4s end ja4_drift, case when windows >= 3 then tls end tls_drift,
    case when windows >= 3 then 1.0 * ja4s / windows end ja4_drift_ratio,
    case when windows >= 3 then majors end ua_major_drift, case when windows >= 3 then orders end header_order_drift
  from (
    select g.window_start, g.host, g.src_ip, g.ja4, count(distinct x.window_start) windows, count(distinct x.ja4) ja4s,
      count(distinct x.tls_identity) tls, count(distinct x.ua_major) majors, count(distinct x.header_order) orders
    from g join g x on x.src_ip = g.src_ip and x.ua_family is g.ua_family and x.host = g.host
      and x.hour <= g.hour and x.hour > g.hour + 1 - {LOOK_BACK}
    group by g.rowid)
"""
LEVEL = "case when {0} > 6 then 3 when {0} > 3 then 1 else 0 end"
CLIENT = f"""
  select g.window_start, g.host, g.src_ip, g.ja4,
    case max({LEVEL.format("x.hits")}) when 3 then 'CRITICAL' when 1 then 'MEDIUM' else 'NORMAL' end client_level,
    count(distinct x.host) client_hosts, sum(x.hits) client_requests,
    (select count(*) from (select distinct y.tls_identity, y.user_agent from g y
      where y.window_start = g.window_start and y.src_ip = g.src_ip)) address_clients
  from g join g x on x.window_start = g.window_start and x.src_ip = g.src_ip
    and x.tls_identity is g.tls_identity and x.user_agent is g.user_agent
  group by g.rowid
"""


def log() -> str:
    """Requests of a few programs from many addresses, some without a ClientHello; some lines come too late."""
    rng = random.Random(SEED)
    ja4s = [f"t13d{15 + n % 3}{16 + n % 2}h2_{n // 3:012x}_{n:012x}" for n in range(14)]
    rows = []
    for hour in range(HOURS):
        for client in range(CLIENTS):
            if rng.random() < 0.2:
                continue
            for _ in range(rng.choice([1, 2, 2, 5, 14, 25])):
                kind = min(int(rng.expovariate(0.4)), 13) if client else rng.randrange(14)
                row = {
                    "host": f"h{rng.randrange(3)}", "src_ip": f"192.0.2.{client}", "path": f"/{rng.randrange(9)}",
                    "user_agent": f"agent {kind % 5}", "family": f"f{kind % 2}", "h2": kind % 3 > 0, "browser": rng.random() < 0.6,
                    "major": str(100 + hour // 4 + (rng.randrange(9) if client < 5 else 0)), "asn": str(client % 5),
                }
                row |= {} if rng.random() < 0.1 else {"ja4": f"rare {hour}" if client == 7 else ja4s[kind], "syn": f"{kind % 4}-{client % 2}"}
                row |= {} if kind % 7 == 6 else {"header_order": f"o{kind % 3}{rng.random() < 0.2}", "country": f"c{client % 3}"}
                row = {name: int(value) if isinstance(value, bool) else value for name, value in row.items()}
                rows.append((hour * HOUR + rng.randrange(HOUR), row))
    rows.sort(key=lambda row: row[0] + rng.randrange(40))
    # A line of an earlier hour, which no feature has.
    rows += [(7 * HOUR, dict(rows[0][1]))]
    return "".join(json.dumps({"time": START + second} | row) + "\n" for second, row in rows)


def database(rows: Iterable[dict]) -> sqlite3.Connection:
    """The final rows of features as the table `g`."""
    rows = list(rows)
    # SQLite has no integers of 64 bits without a sign.
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "seq"))
    db = sqlite3.connect(":memory:")
    db.row_factory = sqlite3.Row
    db.create_function("log_2", 1, lambda share: math.log2(share) if share else None)
    db.execute(f"create table g ({', '.join(columns)}, hour)")
    starts = sorted({row["window_start"] for row in rows})
    hours = {start: int(start[8:10]) * 24 + int(start[11:13]) for start in starts}
    values = [[*(row.get(name) for name in columns), hours[row["window_start"]]] for row in rows]
    db.executemany(f"insert into g values ({', '.join('?' * (len(columns) + 1))})", values)
    db.execute("create index of_window on g (window_start, ja4)")
    db.execute("create index of_client on g (src_ip, host)")
    return db


class Peers(Case):
    """Columns of pipelines/features over generated groups."""

    def key(self, row: dict) -> tuple:
        """What tells groups apart."""
        return row["window_start"], row["host"], row["src_ip"], row.get("ja4") or ""

    def assert_same(self, found: list[dict], expected: list[sqlite3.Row], about: str) -> None:
        """Checks every column of the recomputation: numbers to 1e-9."""
        rows = {self.key(row): row for row in found}
        self.assertEqual(len(rows), len(found), about)
        self.assertEqual(len(rows), len(expected), about)
        for row in map(dict, expected):
            got = rows[self.key(row)]
            for name, value in row.items():
                is_number = isinstance(value, int | float) and got.get(name) is not None
                same = math.isclose(got[name], value, rel_tol=1e-9, abs_tol=1e-12) if is_number else got.get(name) == value
                self.assertTrue(same, f"{about}: {name} is {got.get(name)} and not {value} in {row}")

    def test_every_column_is_that_of_a_recomputation(self) -> None:
        """At 1, 2 and 4 workers, whose outputs are the same rows, corrections included."""
        self.write("access.jsonl", log())
        path = self.write("peers.yaml", PIPELINE)
        first = None
        for workers in (1, 2, 4):
            self.assert_exit(self.engine("run", "-q", "--workers", workers, path), OK)
            out = {name: lines(self.directory / f"{name}.out") for name in ("finals", "ranked", "drifted", "clients", "changes")}
            db = database(out["finals"])
            self.assertGreater(len(out["finals"]), 1_000)
            self.assertGreater(len(lines(self.directory / "late.out")), 0)
            for name, query in (("ranked", OF_JA4), ("drifted", DRIFT), ("clients", CLIENT)):
                self.assert_same(out[name], db.execute(query).fetchall(), f"{name}, {workers} workers")
            for row in out["ranked"]:
                self.assertEqual(row.get("ja4_req_quantile"), row.get("reqs_quantile"))
            found = {name: Counter(json.dumps(row, sort_keys=True) for row in rows) for name, rows in out.items()}
            # What changed its mind in the end stands as it settled.
            sums: Counter[str] = Counter()
            for row in out["changes"]:
                sums[json.dumps({k: v for k, v in row.items() if k != "diff"}, sort_keys=True)] += row["diff"]
            self.assertEqual({row: count for row, count in sums.items() if count}, dict(found["clients"]))
            self.assertGreater(len(out["changes"]), 3 * len(out["clients"]), "rows were corrected")
            first = first or found
            for name, rows in found.items():
                self.assertEqual(rows, first[name], f"{name}, {workers} workers")
        self.assertTrue(any(row["client_level"] != row["verdict"] for row in out["clients"]), "a verdict reaches other hosts")
        self.assertTrue(any(row.get("is_rare_ja4") for row in out["ranked"]))
        self.assertTrue(any(row.get("ja4_drift") is not None for row in out["drifted"]))

    def test_bounds_are_counted(self) -> None:
        """What is too much has no values, and the run says how often."""
        self.write("access.jsonl", log())
        counters = {"max_peers: 5": r"too_many_peers [1-9]", "max_rows: 5": r"ranked +peers( +[\d,]+){4} +[1-9]"}
        for option, counter in counters.items():
            text = PIPELINE.replace("by: [window_start],", f"by: [window_start], {option},")
            run = self.engine("run", self.write("peers.yaml", text))
            self.assert_exit(run, OK)
            self.assertRegex(run.stdout + run.stderr, counter)
            rows = lines(self.directory / "ranked.out")
            self.assertEqual(len(rows), len(lines(self.directory / "finals.out")))
            self.assertTrue(any(row.get("ja4_count") is None for row in rows), option)

    def test_mistakes_are_shown_at_their_place(self) -> None:
        """In columns and in options."""
        self.write("access.jsonl", "")
        for wrong, says in {
            "columns: [{ name: x, expr: sum(hit) over () }]": "did you mean `hits`",
            "columns: [{ name: x, expr: sum(hits) }]": "over (partition by",
            "columns: [{ name: hits, expr: count(*) over () }]": "`hits` already",
            "columns: [{ name: x, expr: sum(count(*) over ()) over () }]": "inside of a window function",
            "columns: [{ name: x, expr: y + 1 }, { name: y, expr: '1' }]": "those above it",
            "columns: []": "there are no columns",
            "columns: [{ name: x, expr: '1' }], look_back: 0s": "`look_back`",
            "columns: [{ name: x, expr: '1' }], max_peers: 0": "`max_peers`",
        }.items():
            text = PIPELINE.replace(f"columns: {PIPELINES}/features/peers.yaml", wrong)
            self.assert_exit(self.engine("validate", self.write("peers.yaml", text)), REFUSED, says)


NODES = """\
  - { id: features, kind: aggregate, from: correlated, by: [host, src_ip], window: 2s, features: [
      { name: hits, expr: count(*) }, { name: orphans, expr: count(*) filter (where correlated = 0) } ] }
  - { id: ranked, kind: peers, from: features.final, by: [window_start], columns: [
      { name: place, expr: rank() over (order by hits) }, { name: share, expr: 1.0 * hits / sum(hits) over () } ] }
  - { id: drifted, kind: peers, from: features.final, by: [src_ip], look_back: 7s, columns: [
      { name: windows, expr: count(distinct window_start) over () }, { name: most, expr: max(hits) over () } ] }
  - { id: clients, kind: peers, from: features, by: [window_start, src_ip], columns: [
      { name: hosts, expr: count(*) over () }, { name: all_hits, expr: sum(hits) over () } ] }
  - { id: ranked_file, kind: sink.jsonl, from: ranked, path: data/ranked.jsonl }
  - { id: drifted_file, kind: sink.jsonl, from: drifted, path: data/drifted.jsonl }
  - { id: clients_file, kind: sink.jsonl, from: clients, path: data/clients.jsonl, mode: changes }
"""


class Live(LiveCase):
    """What a live run has given, from its logs."""

    def test_a_replay_gives_the_same_rows(self) -> None:
        """Every change of them, at 1 and 2 workers."""
        self.record(pipeline(nodes=NODES, window="1s"), 31, seconds=5, windows=True)
        for workers in (1, 2):
            out = self.directory / f"workers-{workers}"
            run = self.engine("replay", self.directory / "live.yaml", "--spool", self.data / "spool", "--data-dir", out,
                              "--workers", workers)
            self.assert_exit(run, OK)
            for name in ("ranked.jsonl", "drifted.jsonl", "clients.jsonl"):
                again, live = ((folder / name).read_text().splitlines() for folder in (out, self.data))
                self.assertGreater(len(live), 50, name)
                self.assert_same_rows(again, live, name)
