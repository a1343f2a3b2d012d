"""The SQL functions of addresses and networks, beside Python's ipaddress; and that all places know them."""

import ipaddress
import json
import os
import random

from tests.support import OK, REFUSED, Case, get, lines, running, served, sql, wait_for

SEED = int(os.environ.get("SEED") or 20261130)
TIME = 1795448127143731000
NETWORKS = [
    "0.0.0.0/0", "10.0.0.0/8", "172.16.0.0/12", "192.0.2.0/24", "192.0.2.128/25", "192.0.2.7/32", "::/0", "2001:db8::/32",
    "2001:db8:0:8000::/49", "2001:db8::7/128", "::ffff:192.0.2.0/120", "fc00::/7",
]


def plain(text):
    """The address as IPv4 if it is one within IPv6; None if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if getattr(address, "scope_id", None):
        return None
    return getattr(address, "ipv4_mapped", None) or address


def network(text):
    """The network; one of mapped addresses is of IPv4."""
    read = ipaddress.ip_network(text)
    if read.version == 6 and read.prefixlen >= 96 and read.network_address.ipv4_mapped:
        return ipaddress.ip_network((read.network_address.ipv4_mapped, read.prefixlen - 96))
    return read


def texts(rng, count):
    """Addresses of both families, near the networks and anywhere, written in several ways; and what is none."""
    for _ in range(count):
        kind = rng.randrange(8)
        near = network(rng.choice(NETWORKS))
        bits = near.max_prefixlen
        value = int(near.network_address) ^ rng.getrandbits(rng.randrange(bits + 1))
        address = (ipaddress.IPv4Address if near.version == 4 else ipaddress.IPv6Address)(value)
        if kind == 0:
            yield rng.choice(["", "unknown", "192.0.2.256", "192.0.2", "1.2.3.4.5", "01.2.3.4", "::g", "[::1]", ":::", "1:2", "10.0.0.1 "])
        elif kind == 1 and address.version == 4:
            yield f"::ffff:{address}"
        elif kind == 2 and address.version == 6:
            yield address.exploded.upper()
        else:
            yield str(address)


class Networks(Case):
    """`ip_in` and its siblings."""

    def test_every_value_is_what_ipaddress_says(self):
        """Addresses near the bounds of networks, at random."""
        rng = random.Random(SEED)
        print(f"\n    SEED={SEED} ", end="")
        given = [(text, rng.randrange(33), rng.randrange(129), rng.choice(NETWORKS)) for text in texts(rng, 3000)]
        rows = [{"t": TIME + n, "a": a, "v4": v4, "v6": v6, "net": net} for n, (a, v4, v6, net) in enumerate(given)]
        self.write("in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        columns = [{"name": f"in_{n}", "expr": f"ip_in(a, '{text}')"} for n, text in enumerate(NETWORKS)]
        columns += [
            {"name": "in_net", "expr": "ip_in(a, net)"}, {"name": "prefix", "expr": "ip_prefix(a, v4, v6)"},
            {"name": "version", "expr": "ip_version(a)"}, {"name": "private", "expr": "ip_is_private(a)"},
            {"name": "loopback", "expr": "ip_is_loopback(a)"},
        ]
        self.write("p.yaml", json.dumps({"name": "networks", "nodes": [
            {"id": "rows", "kind": "source.file", "path": "in.jsonl", "time": "t",
             "columns": {"t": "time", "a": "text", "v4": "integer", "v6": "integer", "net": "text"}},
            {"id": "more", "kind": "derive", "from": "rows", "columns": columns},
            {"id": "out", "kind": "sink.jsonl", "from": "more", "path": "out.jsonl"},
        ]}))
        self.assert_exit(self.engine("run", self.directory / "p.yaml"), OK)
        found = {row["seq"]: row for row in lines(self.directory / "out.jsonl")}
        self.assertEqual(len(found), len(given))
        private = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]
        for seq, (text, v4, v6, net) in enumerate(given):
            row, address = found[seq], plain(text)
            expected = dict.fromkeys(column["name"] for column in columns)
            if address is not None:
                bits = v4 if address.version == 4 else v6
                expected = {f"in_{n}": address in network(name) for n, name in enumerate(NETWORKS)} | {
                    "in_net": address in network(net), "version": address.version, "loopback": address.is_loopback,
                    "private": any(address in n for n in private),
                    "prefix": str(ipaddress.ip_network((address, bits), strict=False)),
                }
            got = {name: row.get(name) for name in expected}
            if got["prefix"] is not None and expected["prefix"] is not None:
                # The same network, however its address is written.
                got["prefix"] = str(ipaddress.ip_network(got["prefix"]))
            self.assertEqual(got, expected, (text, v4, v6, net))

    def test_groups_rules_and_sql_know_them(self):
        """A /64 and a /24 can be a client."""
        clients = ["192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"]
        self.write("in.jsonl", "".join(json.dumps({"t": TIME + n, "a": a}) + "\n" for n, a in enumerate(clients)))
        self.write("p.yaml", """\
name: networks
nodes:
  - { id: rows, kind: source.file, path: in.jsonl, time: t, columns: { t: time, a: ip } }
  - { id: client, kind: derive, from: rows, columns: [ { name: net, expr: "ip_prefix(a, 24, 64)" } ] }
  - { id: kept, kind: filter, from: client, where: "not ip_in(a, '198.51.100.0/24')" }
  - { id: features, kind: aggregate, from: kept, by: [net], features: [ { name: hits, expr: "count(*)" }, { name: six, expr: "count(*) filter (where ip_version(a) = 6)" } ] }
  - id: found
    kind: detect.rules
    from: features.final
    rules: [ { name: doc, level: LOW, when: "ip_in(split_part(net, '/', 1), '192.0.2.0/24') or six > 1", reason: "{net}" } ]
  - { id: detections, kind: sink.jsonl, from: found, path: found.jsonl }
  - { id: out, kind: sink.jsonl, from: features.final, path: out.jsonl }
serve: { listen: 127.0.0.1:0, tables: { rows: client, features: features } }
""")
        log = self.directory / "log"
        with running("run", "--serve", self.directory / "p.yaml", log=log):
            base = served(log)
            wait_for("all rows", lambda: sql(base, "select count(*) c from rows") == [{"c": len(clients)}])
            status, text = get(f"{base}/sql", "select ip_prefix(a, 24, 64) net, count(*) n from rows where not ip_is_private(a) group by 1 order by 1")
            self.assertEqual(status, 200, text)
            self.assertEqual([(row["net"], row["n"]) for row in json.loads(text)["rows"]],
                             [("192.0.2.0/24", 2), ("198.51.100.0/24", 1), ("2001:db8:0:1::/64", 1), ("2001:db8::/64", 2)])
            status, text = get(f"{base}/sql", "select * from rows where ip_in(a, '192.0.2.1/24')")
            self.assertEqual(status, 400, text)
            self.assertIn("192.0.2.0/24", json.loads(text)["help"])
            wait_for("the end of the file", lambda: (self.directory / "found.jsonl").exists() and len(lines(self.directory / "found.jsonl")) == 2)
        self.assertEqual({row["net"] for row in lines(self.directory / "found.jsonl")}, {"192.0.2.0/24", "2001:db8::/64"})
        groups = {row["net"]: (row["hits"], row["six"]) for row in lines(self.directory / "out.jsonl")}
        self.assertEqual(groups, {"192.0.2.0/24": (2, 0), "2001:db8::/64": (2, 2), "2001:db8:0:1::/64": (1, 1)})

    def test_a_wrong_network_is_refused_at_its_place(self):
        """Before anything runs, with what was meant."""
        self.write("p.yaml", """\
name: networks
nodes:
  - { id: rows, kind: source.file, path: in.jsonl, time: t, columns: { t: time, a: ip } }
  - { id: kept, kind: filter, from: rows, where: "ip_in(a, '10.0.0.0/8') or ip_in(a, '192.0.2.1/24')" }
  - { id: out, kind: sink.jsonl, from: kept, path: out.jsonl }
""")
        self.write("in.jsonl", "")
        self.assert_exit(self.engine("validate", self.directory / "p.yaml"), REFUSED, "p.yaml:4:87", "bits behind its prefix", "192.0.2.0/24")
