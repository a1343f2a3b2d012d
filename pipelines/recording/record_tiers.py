"""Makes the second recording: people and bots of four tiers, drawn by a seed (cast.py).

Usage (as root): record_tiers.py --seed N --output DIRECTORY --python VENV_PYTHON [--browsers DIRECTORY]
                                 [--only WORD] [--keep]

Writes capture.pcap, requests.jsonl, truth.jsonl (a line a client), connections.jsonl (a line a connection: whose it
is), asn.csv and PROVENANCE.md. Time is real: a run takes about eight minutes. Namespaces and processes are removed on
every exit. `--browsers`: further unpacked browsers (other versions) beside Debian's. `--only`: the clients whose name
holds the word, to try them out.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cast
import connections
import net
import provenance
import record
import requestlog
import server
from places import Place

HERE = Path(__file__).resolve().parent
CLIENT_DIR = HERE / "clients/tiers"

# At a time: a browser takes a core while it starts, an HTTP client next to nothing.
BROWSERS, LIBRARIES = 7, 5
CLIENT_LIMIT_S = 240

# Tool of T1 -> the program that it needs; those without one are Python's.
NEEDS = {"curl": "curl", "wget": "wget", "go": "go", "java": "javac", "perl": "perl", "php": "php", "ruby": "ruby"}


def main() -> int:
    """Runs the recording; 0 on success, 1 with a message otherwise."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, required=True)
    options.add_argument("--output", type=Path, required=True, help="directory of the result")
    options.add_argument("--python", required=True, help="a Python with clients/tiers/requirements.txt")
    options.add_argument("--browsers", type=Path, help="directory of unpacked browsers")
    options.add_argument("--only", default="", help="a word of the clients' names")
    options.add_argument("--keep", action="store_true", help="keep the work directory, say where")
    given = options.parse_args()
    # Clients run in another folder. The link of a virtual environment stays one: it is what finds the packages.
    given.python = os.path.abspath(given.python)
    given.browsers = given.browsers and given.browsers.resolve()
    for number in record.SIGNALS:
        signal.signal(number, record.stop)
    work = Path(tempfile.mkdtemp(prefix="ja4rec-"))
    try:
        return run(work, given)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"record: {error}", file=sys.stderr)
        return 1
    finally:
        net.destroy()
        if given.keep:
            print(f"record: kept {work}", file=sys.stderr)
        else:
            shutil.rmtree(work, ignore_errors=True)


def run(work: Path, given: argparse.Namespace) -> int:
    """One recording from empty namespaces to the files in the output directory."""
    net.destroy()
    versions = provenance.versions()
    browsers = installed(given.browsers)
    available = {tool for tool in cast.T1_TOOLS if tool not in NEEDS or shutil.which(NEEDS[tool])}
    actors = [one for one in cast.cast(given.seed, browsers, available) if given.only in one.client]
    if "go" in available:
        environment = {**os.environ, "GOCACHE": str(work / "go-cache"), "GO111MODULE": "off", "CGO_ENABLED": "0"}
        subprocess.run(
            ["go", "build", "-o", str(work / "fetch-go"), str(CLIENT_DIR / "lines/fetch.go")],
            check=True,
            env=environment,
        )
    net.serve()
    server.prepare(work)
    processes = server.start(work)
    (work / "access.raw").write_text("")
    (work / "result").mkdir()
    rooms, places = settle(actors)
    for name, place in places.items():
        processes.append(place.proxy(work) if name == "office" else place.capture(work))
        if name != "office":
            place.translate()
    ended = run_actors(work, given, actors, rooms, places)
    time.sleep(record.DRAIN_S)
    for process in reversed(processes):
        process.terminate()
        process.wait(timeout=20)
    return publish(work, given, actors, ended, places, rooms, versions | {one.path: one.major for one in browsers})


def installed(more: Path | None) -> list[cast.Browser]:
    """Debian's browsers and those that are unpacked in a directory."""
    paths = ["/usr/bin/chromium", "/usr/bin/firefox-esr"]
    paths += (
        [
            str(path)
            for path in sorted(more.glob("*/usr/lib/*/*"))
            if path.name in ("chromium", "firefox-esr") and os.access(path, os.X_OK) and path.is_file()
        ]
        if more
        else []
    )
    found = []
    for path in paths:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        found.append(cast.Browser("firefox" if "firefox" in path else "chromium", path, re.search(r"(\d+)\.", said)[1]))
    return found


def settle(actors: list[cast.Actor]) -> tuple[dict[str, tuple[str, str]], dict[str, Place]]:
    """A namespace for each actor, and the places that some share; (namespace, private address) by client."""
    rooms, places = {}, {}
    for number, actor in enumerate(actors, 1):
        name = f"{net.PREFIX}{number}"
        if not actor.place:
            net.attach(name, f"c{number}", *actor.src_ips)
            rooms[actor.client] = (name, "")
            continue
        if actor.place not in places:
            places[actor.place] = Place(len(places) + 1, actor.place, actor.src_ips[0])
        rooms[actor.client] = (name, places[actor.place].join(name))
    return rooms, places


def run_actors(work: Path, given: argparse.Namespace, actors: list, rooms: dict, places: dict) -> dict[str, int]:
    """Captures while all run, some at a time; returns their exit codes."""
    capture = record.start_capture(work)
    rng = random.Random(given.seed)
    waiting = {True: [one for one in actors if one.browser], False: [one for one in actors if not one.browser]}
    running, ended = [], {}
    while waiting[True] or waiting[False] or running:
        for entry in list(running):
            actor, process, begun = entry
            if process.poll() is None and time.monotonic() - begun > CLIENT_LIMIT_S:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=20)
            if process.poll() is not None:
                running.remove(entry)
                ended[actor.client] = process.returncode
                print(f"{actor.client:<32}{process.returncode:>4}{time.monotonic() - begun:>8.1f} s", flush=True)
        for browser, limit in ((True, BROWSERS), (False, LIBRARIES)):
            busy = sum(actor.browser == browser for actor, _, _ in running)
            if waiting[browser] and busy < limit:
                actor = waiting[browser].pop(0)
                running.append((actor, begin(work, given, actor, rooms[actor.client][0], places), time.monotonic()))
        time.sleep(rng.uniform(0.2, 0.6))
    time.sleep(record.DRAIN_S)
    record.stop_capture(work, capture)
    return ended


def begin(work: Path, given: argparse.Namespace, actor: cast.Actor, room: str, places: dict) -> subprocess.Popen:
    """Starts a client in its namespace."""
    program, script = actor.command
    home = work / actor.client
    home.mkdir()
    words = [given.python if program == "python" else program, str(CLIENT_DIR / script)]
    if actor.rotate:
        words = [given.python, str(CLIENT_DIR / "rotating.py"), actor.rotate, *words]
    # Nothing is inherited: what the caller's shell has set would change what clients do.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "JA4REC_CA": str(work / "ca.pem"),
        "JA4REC_WORK": str(work),
        "NODE_EXTRA_CA_CERTS": str(work / "ca.pem"),
        "JA4REC_PLAN": json.dumps(actor.plan),
        "JA4REC_ADDRESSES": ",".join(actor.src_ips),
        **({"JA4REC_PROXY": places["office"].url()} if actor.place == "office" else {}),
    }
    with (work / f"{actor.client}.out").open("w") as out, (work / f"{actor.client}.err").open("w") as err:
        return subprocess.Popen(
            net.inside(room, *words),
            cwd=CLIENT_DIR,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def line_of(actor: cast.Actor, counts: dict, owned: list[dict], client: str = "") -> dict:
    """A line of truth.jsonl."""
    client = client or actor.client
    return {
        "client": client,
        "bot": actor.bot,
        "kind": actor.kind,
        "tier": actor.tier,
        "place": actor.place,
        "src_ips": list(actor.src_ips),
        "rotate": actor.rotate,
        "requests": counts.get(client, 0),
        "connections": sum(one["client"] == client for one in owned),
        "plan": {key: value for key, value in actor.plan.items() if key not in ("path", "seed")},
    }


def publish(
    work: Path, given: argparse.Namespace, actors: list, ended: dict, places: dict, rooms: dict, versions: dict
) -> int:
    """Converts, says whose each connection is, checks, and copies to the output directory."""
    result = work / "result"
    requests = requestlog.convert(work / "access.raw", work / "header_names.raw", result / "requests.jsonl")
    inner = {rooms[actor.client][1]: actor.client for actor in actors if actor.place}
    owned = connections.owners(work, actors, places, inner)
    connections.write(result / "connections.jsonl", owned)
    counts, strays = connections.count(owned, requests)
    truth = []
    for actor in actors:
        complaint = (work / f"{actor.client}.err").read_text(errors="replace")
        if ended[actor.client]:
            print(f"record: {actor.client} ended with {ended[actor.client]}: {complaint[-400:]}", file=sys.stderr)
        if actor.place != "office":
            truth.append(line_of(actor, counts, owned) | {"exit": ended[actor.client]})
    office = [actor for actor in actors if actor.place == "office"]
    if office:
        # Its proxy's connections are shared, all of them by people.
        line = line_of(office[0], counts, owned, "office")
        truth.append(line | {"kind": "office", "plan": {"people": [actor.client for actor in office]}})
    (result / "truth.jsonl").write_text("".join(json.dumps(one) + "\n" for one in truth))
    shutil.copy(HERE / "asn.csv", result / "asn.csv")
    connections.provenance(result, given.seed, versions, truth, requests)
    given.output.mkdir(parents=True, exist_ok=True)
    for file in result.iterdir():
        shutil.copy(file, given.output / file.name)
    silent = [one["client"] for one in truth if not one["requests"]]
    print(
        f"record: {len(requests)} requests of {len(truth)} clients in {given.output}; without any: {silent}; "
        f"requests of nobody: {strays}"
    )
    return 1 if strays else 0


if __name__ == "__main__":
    sys.exit(main())
