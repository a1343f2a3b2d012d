"""features/address.yaml: rotating JA4s, forms that are tried and slow requests as live relations, against counting by hand."""

import json
from collections import Counter, defaultdict

from tests.support import OK, PIPELINES, Case, lines

# A whole hour, in ns.
START = 1_795_446_000_000_000_000
SECOND = 1_000_000_000

PIPELINE = f"""\
name: address
data_dir: data
nodes:
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }}
  - {{ id: known, kind: derive, from: requests, columns: [{{ name: ja4, expr: header_x_trace_id }}] }}
  - {{ id: features, kind: aggregate, from: known, by: [host, src_ip, ja4], features: needed.yaml }}
  - {{ id: clients, kind: peers, from: features, by: [window_start, src_ip], columns: {PIPELINES}/features/address.yaml }}
  - {{ id: rotating, kind: filter, from: clients, where: "client_identities >= 3" }}
  - {{ id: posting, kind: filter, from: clients, where: "address_posts >= 10" }}
  - {{ id: slow, kind: filter, from: clients, where: "address_slow_requests >= 3 and address_slow_ratio >= 0.1" }}
  - {{ id: rotating_out, kind: sink.jsonl, from: rotating, path: rotating.jsonl, mode: changes }}
  - {{ id: posting_out, kind: sink.jsonl, from: posting, path: posting.jsonl, mode: changes }}
  - {{ id: slow_out, kind: sink.jsonl, from: slow, path: slow.jsonl, mode: changes }}
"""
NEEDED = ("hits", "post_ratio", "login_posts", "login_failures", "slow_requests", "user_agent", "tls_identity")
ROTATING, RESUMING, NAT, TRYING, FEW, HOLDING, FAST = (f"192.0.2.{n}" for n in range(1, 8))


def features() -> str:
    """The entries of these names, as a file of their own."""
    found = {}
    for name in ("standard", "model", "peer_keys"):
        for entry in (PIPELINES / f"features/{name}.yaml").read_text().split("\n- name: ")[1:]:
            found.setdefault(entry.split("\n", 1)[0], "- name: " + entry)
    # What stands behind the last entry of a part is a comment.
    return "\n".join("\n".join(line for line in found[name].splitlines() if not line.startswith("#")) for name in NEEDED)


def made() -> list[dict]:
    """Requests of the hour: address, second, and what is special."""
    rows = []

    def add(address: str, second: int, ja4: str = "t13d1516h2_8daaf6152771_02713d6af862", agent: str = "A", **more) -> None:
        rows.append({"timestamp": START + second * SECOND, "src_ip": address, "src_port": 1024 + second, "method": "GET", "host": "a.test",
                     "path": "/", "status_code": 200, "duration_ms": 5, "header_X-Trace-Id": ja4, "header_User-Agent": agent} | more)

    for second in range(12):
        add(ROTATING, 10 * second, f"t13d15{second // 3}0h2_{second // 3:012x}_02713d6af862")
        # The same but for the extensions: resumed connections.
        add(RESUMING, 10 * second, f"t13d151{second % 2}h2_8daaf6152771_{second:012x}")
        add(NAT, 10 * second, f"t13d1516h2_{second % 4:012x}_02713d6af862", f"person {second % 4}")
        add(TRYING, 10 * second, method="POST", path="/login", status_code=401)
        add(FEW, 10 * second, method="POST" if second < 9 else "GET")
        add(FAST, 10 * second, duration_ms=12_000 if second == 3 else 9_999)
    for second in range(4):
        add(HOLDING, second, duration_ms=10_000 + second)
    # Later it does much else: 4 of 50 are slow.
    for second in range(46):
        add(HOLDING, 200 + second)
    return sorted(rows, key=lambda row: row["timestamp"])


class Address(Case):
    """What is in each relation, when it comes and when it goes."""

    def test_relations_come_and_are_taken_back(self) -> None:
        self.write("needed.yaml", features())
        self.write("requests.jsonl", "".join(json.dumps(row) + "\n" for row in made()))
        self.assert_exit(self.engine("run", "-q", self.write("p.yaml", PIPELINE)), OK)
        rotating, posting, slow = (self.standing(name) for name in ("rotating", "posting", "slow"))
        self.assertEqual({row["src_ip"] for row in rotating}, {ROTATING})
        # One row for each JA4, all of which know of each other in the end.
        self.assertEqual(Counter((row["client_identities"], row["hits"]) for row in rotating), {(4, 3): 4})
        self.assertEqual([(row["src_ip"], row["address_posts"], row["address_login_failures"]) for row in posting], [(TRYING, 12, 12)])
        self.assertEqual(slow, [])
        came = [row for row in lines(self.directory / "slow.jsonl") if row["diff"] > 0]
        self.assertEqual({(row["src_ip"], row["address_slow_requests"]) for row in came}, {(HOLDING, 3), (HOLDING, 4)})

    def standing(self, name: str) -> list[dict]:
        """The rows of a relation in the end, each of which came once more than it went."""
        counts = defaultdict(int)
        for row in lines(self.directory / f"{name}.jsonl"):
            kept = {key: value for key, value in row.items() if key not in ("diff", "tick")}
            counts[json.dumps(kept, sort_keys=True)] += row["diff"]
        self.assertLessEqual(set(counts.values()), {0, 1})
        return [json.loads(row) for row, count in counts.items() if count]
