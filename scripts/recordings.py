"""Recordings with a known truth, and runs of a pipeline on them; for recall.py."""

import bisect
import collections
import json
import os
import re
import shutil
import subprocess
import tempfile
from datetime import datetime, timezone
from pathlib import Path

# The first bytes of a capture file without packets (pcap, microseconds, Ethernet).
EMPTY_CAPTURE = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")

# Where pipelines read the recording, and the node whose rows are requests with their hello.
READ_FROM = "recording/demo"
REQUESTS_NODE = "correlated"

LIBRARY = re.compile(
    r"^$|^(curl|wget|python|okhttp|go-http-client|node|undici|axios|got|java|apache-httpclient|libwww|lwp|ruby|php|guzzle|"
    r"aiohttp|httpx|scrapy|dart|rust|reqwest|perl|postman|insomnia|powershell)\b|bot\b|crawl|spider|headless|phantomjs|selenium|"
    r"https?://",
    re.IGNORECASE,
)


def names_itself(agent: str) -> bool:
    """Whether a User-Agent says that it is a program."""
    return bool(LIBRARY.search(agent))


def rows(path: Path) -> list[dict]:
    """The objects of a file of JSON lines; none if there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class Recording:
    """One recording: its clients by name, and whose each connection is."""

    def __init__(self, path: Path):
        self.path, self.name = path.resolve(), path.resolve().name
        if not (path / "connections.jsonl").exists():
            raise SystemExit(f"recall: {path} is no recording of SCENARIO=tiers: it has no connections.jsonl")
        self.clients = {one["client"]: one for one in rows(path / "truth.jsonl")}
        self.begun = collections.defaultdict(list)
        for one in sorted(rows(path / "connections.jsonl"), key=lambda one: one["time"]):
            self.begun[one["src_ip"], one["src_port"]].append((one["time"], one["client"]))
        self.requests = rows(path / "requests.jsonl")
        for request in self.requests:
            request["client"] = self.client(request["src_ip"], request["src_port"], request["timestamp"])

    def client(self, ip: str, port: int, time: int) -> str:
        """The client of a request, by the last connection that had begun."""
        connections = self.begun[ip, port]
        return connections[bisect.bisect(connections, (time, "\uffff")) - 1][1]


def engine(
    binary: str, pipeline: Path, recording: Recording, tls: bool, models: Path, work: Path, min_rows: int = 0
) -> Path:
    """Runs the pipeline on the recording in `work`; returns the directory of its outputs. A model in `models` is used.

    `min_rows`, if not 0, is that of the pipeline's `train.forest`: a few recordings have fewer rows than its default.
    """
    copy = work / "pipelines"
    shutil.copytree(pipeline.resolve().parent, copy, ignore=shutil.ignore_patterns("recording", "tests"))
    read = copy / READ_FROM
    read.mkdir(parents=True)
    for file in recording.path.iterdir():
        (read / file.name).symlink_to(file)
    if not tls:
        (read / "capture.pcap").unlink()
        (read / "capture.pcap").write_bytes(EMPTY_CAPTURE)
    # Made up for the demo's addresses, which are others here.
    for name in ("bot_ip.csv", "crawlers.csv"):
        if (listed := copy / "reference" / name).exists():
            listed.write_text(listed.read_text().splitlines()[0] + "\n")
    data = work / "data"
    if models.is_dir():
        shutil.copytree(models, data)
    text = (copy / pipeline.name).read_text()
    node = f"  - {{ id: recall, kind: sink.jsonl, from: {REQUESTS_NODE}, path: {data}/recall.jsonl }}\n"
    text = text.replace("\nserve:", f"\n{node}\nserve:", 1)
    if min_rows:
        text = text.replace("kind: train.forest\n", f"kind: train.forest\n    min_rows: {min_rows}\n")
    (copy / pipeline.name).write_text(text)
    done = subprocess.run(
        [binary, "run", "--listen", "127.0.0.1:0", str(copy / pipeline.name)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DATA_DIR": str(data)},
    )
    if done.returncode:
        raise SystemExit(f"recall: {recording.name}: the engine ended with {done.returncode}\n{done.stderr[-3000:]}")
    for request in (requests := rows(data / "recall.jsonl")):
        request["time_ns"] = nanoseconds(request["time"])
    (data / "recall.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    return data


def nanoseconds(time: str | int) -> int:
    """A time of a row as nanoseconds since 1970."""
    if isinstance(time, int):
        return time
    whole, _, rest = time.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp())
    return seconds * 10**9 + int(rest.ljust(9, "0")[:9])


def merge(recordings_: list[Recording], target: Path) -> None:
    """One recording out of several, each in an hour of its own, so that equal addresses are not one client."""
    target.mkdir()
    hour = 3600 * 10**9
    begin = min(request["timestamp"] for one in recordings_ for request in one.requests) // hour * hour
    captures, requests = [], []
    for number, one in enumerate(recordings_):
        first = min(request["timestamp"] for request in one.requests)
        # A minute for the connections that the first requests are on.
        shift = (begin - (len(recordings_) - number) * hour + hour // 60 - first) // 10**9 * 10**9
        captures.append(target / f"{number}.pcap")
        subprocess.run(
            ["editcap", "-F", "pcap", "-t", str(shift // 10**9), one.path / "capture.pcap", captures[-1]], check=True
        )
        for request in rows(one.path / "requests.jsonl"):
            request["timestamp"] += shift
            moment = datetime.fromtimestamp(request["timestamp"] // 10**9, timezone.utc)
            request["time"] = f"{moment:%Y-%m-%dT%H:%M:%S}.{request['timestamp'] % 10**9:09}Z"
            requests.append(request)
    subprocess.run(["mergecap", "-F", "pcap", "-w", target / "capture.pcap", *captures], check=True)
    requests.sort(key=lambda request: request["timestamp"])
    (target / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    for name in ("truth.jsonl", "connections.jsonl"):
        (target / name).touch()
    shutil.copy(recordings_[0].path / "asn.csv", target / "asn.csv")


def train(binary: str, pipeline: Path, recordings_: list[Recording], tls: bool, models: Path, min_rows: int) -> None:
    """Runs the pipeline on the recordings, as one after another, and puts the models that it writes into `models`."""
    with tempfile.TemporaryDirectory(prefix="recall-train-") as work:
        merge(recordings_, Path(work) / "merged")
        merged = Recording.__new__(Recording)
        merged.path, merged.name = Path(work) / "merged", "training"
        (Path(work) / "run").mkdir()
        data = engine(binary, pipeline, merged, tls, Path(work) / "none", Path(work) / "run", min_rows)
        found = [file for file in data.glob("*.json") if file.is_file()]
        for file in found:
            shutil.copy(file, models / file.name)
        if not found:
            print(f"no model came out of the training{'' if tls else ' without TLS'}: rules decide alone")
