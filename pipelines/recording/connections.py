"""Whose connection each one of a recording is: the ground truth below the address.

An address that one client has to itself says it. Behind address translation the kernel leaves the first sequence number
of a connection as it is, so that the SYN outside is found again inside, where each client has its own address. Behind
the office's proxy connections are the proxy's; all that use it are people.
"""

import bisect
import collections
import json
from pathlib import Path

import net

FIELDS = ("frame.time_epoch", "ip.src", "ipv6.src", "tcp.srcport", "tcp.seq_raw")
SYN = "tcp.flags.syn == 1 && tcp.flags.ack == 0"


def opened(capture: Path) -> list[dict]:
    """The first packets of connections, once each."""
    words = [word for field in FIELDS for word in ("-e", field)]
    text = net.run("tshark", "-r", str(capture), "-Y", SYN, "-T", "fields", *words)
    found = {}
    for line in text.splitlines():
        moment, v4, v6, port, sequence = line.split("\t")
        seconds, _, rest = moment.partition(".")
        key = (v4 or v6, int(port), int(sequence))
        found.setdefault(key, int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9]))
    return [
        {"time": time, "src_ip": ip, "src_port": port, "sequence": sequence}
        for (ip, port, sequence), time in found.items()
    ]


def owners(work: Path, actors: list, places: dict, inner: dict[str, str]) -> list[dict]:
    """Every connection of the capture with its client."""
    alone = {ip: actor.client for actor in actors if not actor.place for ip in actor.src_ips}
    office = {places["office"].outer: "office"} if "office" in places else {}
    translated = {}
    for name, place in places.items():
        if name != "office":
            translated |= {
                (place.outer, one["sequence"]): inner[one["src_ip"]] for one in opened(work / f"{name}.pcap")
            }
    made = []
    for one in opened(work / "result/capture.pcap"):
        ip = one["src_ip"]
        client = alone.get(ip) or office.get(ip) or translated.get((ip, one["sequence"]))
        made.append({"time": one["time"], "src_ip": ip, "src_port": one["src_port"], "client": client})
    return made


def write(path: Path, owned: list[dict]) -> None:
    """One line a connection."""
    path.write_text("".join(json.dumps(one) + "\n" for one in owned))


def count(owned: list[dict], requests: list[dict]) -> tuple[collections.Counter, int]:
    """Requests of each client, and of nobody."""
    begun = collections.defaultdict(list)
    for one in sorted(owned, key=lambda one: one["time"]):
        begun[one["src_ip"], one["src_port"]].append((one["time"], one["client"]))
    counts, strays = collections.Counter(), 0
    for request in requests:
        all_of = begun[request["src_ip"], request["src_port"]]
        at = bisect.bisect(all_of, (request["timestamp"], "\uffff")) - 1
        client = all_of[at][1] if at >= 0 else None
        if client is None:
            strays += 1
        counts[client] += 1
    return counts, strays


def provenance(directory: Path, seed: int, versions: dict[str, str], truth: list[dict], requests: list[dict]) -> None:
    """PROVENANCE.md of a recording of tiers."""
    first, last = min(one["time"] for one in requests), max(one["time"] for one in requests)
    groups = collections.Counter((one["tier"] or "people", one["bot"]) for one in truth)
    lines = [
        "# Provenance of this recording",
        "",
        f"`make record SCENARIO=tiers SEED={seed}` (`pipelines/recording/record_tiers.py`): "
        f"{len(requests)} requests from {first} to "
        f"{last}; clients: " + ", ".join(f"{tier} {number}" for (tier, _), number in sorted(groups.items())) + ".",
        "",
        "Namespaces of one machine, addresses from documentation ranges; no traffic left it. `truth.jsonl`: a line a "
        "client; `connections.jsonl`: whose each TCP connection is (behind address translation by the sequence number inside). "
        "Times are real. Certificates are not checked by some of the imitating libraries, which the server cannot see.",
        "",
        "What it cannot show: Windows and macOS, phones, a network's delay and loss, think times of hours, HTTP/3, a "
        "browser with a window. People's browsers are driven too, with as few flags as possible, without any that only bots here have.",
        "",
        "| tool | version |",
        "|---|---|",
        *(f"| {name} | {version} |" for name, version in versions.items()),
        "",
    ]
    (directory / "PROVENANCE.md").write_text("\n".join(lines))
