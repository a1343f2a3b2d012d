"""Every shipped feature that a group has by itself, recomputed by the oracle on generated traffic with late rows."""

import os
import random
import re
import subprocess
import sys
import unittest
from dataclasses import replace

from tests.support import OK, PIPELINES, Case, lines
from tests.traffic import HELLO, MS, SECOND, START, Event, Traffic, in_order, shuffled, write

LATENESS = 2 * SECOND
SEED = int(os.environ.get("SEED") or 1)
FILES = ("standard", "model", "sequence")
# The features that this traffic is made for.
NAMES = ("transport_seen", "alpn_http_mismatch", "sni_host_mismatch", "ttl_os_mismatch", *(
    name for file in FILES[1:] for name in re.findall(r"^- name: (\w+)$", (PIPELINES / f"features/{file}.yaml").read_text(), re.M)
))

PIPELINE = """\
name: features
nodes:
  - {{ id: hellos, kind: source.file, path: hellos.jsonl, format: ja4sentinel, lateness: {lateness}ms }}
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log, lateness: {lateness}ms }}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }} }}
  - {{ id: features, kind: aggregate, from: correlated, by: [host, src_ip, ja4], window: 1h, features: [{files}] }}
  - {{ id: rows, kind: sink.jsonl, from: correlated, path: "{out}/rows.jsonl" }}
  - {{ id: late, kind: sink.jsonl, from: correlated.late, path: "{out}/late.jsonl" }}
  - {{ id: file, kind: sink.jsonl, from: features, path: "{out}/features.jsonl" }}
  - {{ id: final, kind: sink.jsonl, from: features.final, path: "{out}/final.jsonl" }}
"""

PATHS = (*["/", "/"], "/about", "/item/7", "/item/8", "/item/9.html", "/a/b/c", "/static/app.js", "/static/site.css",
         "/static/logo.svg", "/favicon.ico", "/login", "/.env", "/robots.txt", "/search", "/files/../../etc/passwd")
QUERIES = ("", "", "", "page=1", "page=2", "page=3", "q=%3Cscript%3E", "id=1 union all select 2")
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/152.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:147.0) Gecko/20100101 Firefox/147.0", "python-requests/2.32", None,
)
HEADERS = {
    "header_Accept-Encoding": ("gzip, deflate, br, zstd", "gzip, br", "identity;q=1, *;q=0", None),
    "header_Accept-Language": ("de", None), "header_Referer": ("https://www.example.test/", None),
    "header_Sec-CH-UA": ('"Chromium";v="152"', None), "header_Sec-CH-UA-Mobile": ("?0", "?1", None),
    "header_Content-Type": ("application/json", "text/plain; charset=utf-8", "application/xml", None),
    "header_X-Forwarded-For": ("192.0.2.77", None, None, None, None),
    "header_order_signature": ("Host;User-Agent;Accept", "Host;Accept;User-Agent", None),
    "has_cookie": (True, False, None),
}


def varied(events: list[Event], seed: int) -> list[Event]:
    """The same events, saying more. A client's habits vary: some are behind a proxy always, some never."""
    rng = random.Random(f"varied {seed}")
    habits: dict[str, dict] = {}
    changed = []
    for event in events:
        if event.stream == HELLO:
            more = {"post_quantum": rng.choice((True, False, None)), "tcp_meta_mss": rng.choice((1460, 1460, 1380, 0))}
            more["tcp_meta_window_size"] = rng.randrange(65_536)
            fields = event.fields | (more if "tcp_meta_mss" in event.fields else {"post_quantum": more["post_quantum"]})
        else:
            habit = habits.setdefault(event.fields["src_ip"].lower(), {
                name: (rng.choice(values),) if rng.random() < 0.6 else values for name, values in HEADERS.items()
            })
            fields = event.fields | {name: rng.choice(values) for name, values in habit.items()}
            fields |= {"path": rng.choice(PATHS), "query": rng.choice(QUERIES), "header_User-Agent": rng.choice(AGENTS)}
            fields["method"] = rng.choice(("GET", "GET", "GET", "POST", "HEAD"))
        changed.append(replace(event, fields={name: value for name, value in fields.items() if value is not None}))
    return in_order(changed)


class Features(Case):
    """The files of pipelines/features, by the engine and by the oracle."""

    def run_on(self, events: list[Event], workers: int, out: str) -> dict[str, list[dict]]:
        """What the engine writes."""
        write(events, self.directory)
        files = ", ".join(f'"{PIPELINES}/features/{name}.yaml"' for name in FILES)
        text = PIPELINE.format(lateness=LATENESS // MS, files=files, out=out)
        self.assert_exit(self.engine("run", "--workers", workers, self.write("features.yaml", text)), OK)
        return {name: lines(self.directory / out / f"{name}.jsonl") for name in ("rows", "late", "features", "final")}

    def compare(self, out: str) -> str:
        """The oracle's table of differences; there must be none."""
        python = os.environ.get("ORACLE_PYTHON", sys.executable)
        compared = subprocess.run(
            [python, PIPELINES / "tests/oracle/compare.py", "--correlated", self.directory / out / "rows.jsonl",
             "--features", self.directory / out / "features.jsonl"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )
        self.assertEqual(compared.returncode, 0, compared.stdout)
        return compared.stdout

    def traffic(self, **changes: object) -> list[Event]:
        """From ten minutes before a full hour to some time after it: two windows."""
        begin = START + 3600 * SECOND - 600 * SECOND
        traffic = Traffic(seed=SEED, seconds=900, connections_per_s=1.5, requests=8, clients=14, start=begin,
                          lateness=LATENESS, slow=0.01)
        return varied(replace(traffic, **changes).events(), SEED)

    def test_features_equal_their_recomputation(self):
        """With late rows, for any number of workers; every feature has a value somewhere."""
        events = self.traffic(late=0.02)
        expected = None
        for workers in (1, 2, 4):
            with self.subTest(workers=workers):
                got = self.run_on(events, workers, f"out{workers}")
                self.assertGreater(len(got["late"]), 20)
                ordered = sorted(map(repr, got["features"]))
                self.assertEqual(ordered, expected or ordered)
                expected = ordered
                self.compare(f"out{workers}")
        rows = got["features"]
        self.assertGreater(len({row["window_start"] for row in rows}), 1)
        for name in NAMES:
            self.assertGreater(len({repr(row.get(name)) for row in rows}), 1, f"{name} is the same everywhere")
        print(f"\n    SEED={SEED}: {len(got['rows'])} requests, {len(got['late'])} late, {len(rows)} groups ", end="")

    def test_the_order_of_arrival_does_not_matter(self):
        """Rows without ties, shuffled within the lateness: the same features but for `seq`, which nothing depends on."""
        events = self.traffic(ties=0, slow=0)
        first = self.run_on(events, 2, "first")["features"]
        again = self.run_on(shuffled(events, LATENESS, SEED), 2, "again")["features"]
        self.assert_same_rows(map(repr, again), map(repr, first))

    def test_behind_a_proxy_the_transport_is_not_the_clients(self):
        """Every request with X-Forwarded-For: what TLS and TCP say is null, not suspicious."""
        events = [event if event.stream == HELLO else
                  replace(event, fields=event.fields | {"header_X-Forwarded-For": "203.0.113.9"})
                  for event in self.traffic()]
        rows = self.run_on(events, 2, "out")["features"]
        self.assertEqual({row["transport_seen"] for row in rows}, {0})
        for name in ("alpn_http_mismatch", "sni_host_mismatch", "sni_missing", "tls12_or_lower", "chromium_tls_mismatch",
                     "ttl_os_mismatch", "ip_id_zero_ratio", "window_mss_ratio", "syn_to_ch_cv", "true_window_size",
                     "tcp_jitter_variance", "mss_mobile_mismatch"):
            self.assertEqual({row.get(name) for row in rows}, {None}, name)
        self.compare("out")


if __name__ == "__main__":
    unittest.main()
