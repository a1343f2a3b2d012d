"""Makes the demo recording: real clients against a real Apache, between network namespaces.

Usage (as root): record.py [--output DIRECTORY] [--check] [--keep]

Writes capture.pcap, requests.jsonl, truth.jsonl, asn.csv and PROVENANCE.md, after comparing what the clients
counted with the log and the capture. Namespaces and processes are removed on every exit; a run that fails
leaves the output directory as it was. Time is real: nothing is rewritten, so a run takes about five minutes.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import net
import provenance
import requestlog
import server
import verify
from roster import CLIENTS, DURATION_S, Client

HERE = Path(__file__).resolve().parent
CLIENT_DIR = HERE / "clients"
SEED = 2

# From the clients everything; from the server only the segments that open and close connections: what
# the server says is not needed for fingerprints, and is most of the bytes.
CAPTURE_FILTER = (
    "(tcp and (dst port 443 or dst port 8443))"
    " or (tcp and (src port 443 or src port 8443) and tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0)"
    " or (ip6 and (src port 443 or src port 8443) and ip6[6] = 6 and ip6[53] & 7 != 0)"
)

# Program -> Debian package.
PROGRAMS = {
    "apache2": "apache2", "awk": "mawk", "certutil": "libnss3-tools", "chromium": "chromium", "curl": "curl",
    "ethtool": "ethtool", "ip": "iproute2", "node": "nodejs", "npm": "npm", "openssl": "openssl",
    "tcpdump": "tcpdump", "tshark": "tshark", "wget": "wget",
}

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# After the last client: long enough for the last FINs and log lines.
DRAIN_S = 2
CLIENT_LIMIT_S = DURATION_S + 120


def main() -> int:
    """Runs the recording; 0 on success, 1 with a message otherwise."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", type=Path, default=HERE / "demo", help="directory of the result")
    options.add_argument("--check", action="store_true", help="check the prerequisites and stop")
    options.add_argument("--keep", action="store_true", help="keep the work directory, say where")
    given = options.parse_args()

    missing = prerequisites()
    if missing:
        print(f"record: missing: {'; '.join(missing)}", file=sys.stderr)
        return 1
    if given.check:
        return 0
    for number in SIGNALS:
        signal.signal(number, stop)
    work = Path(tempfile.mkdtemp(prefix="ja4rec-"))
    try:
        return record(work, given.output)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"record: {error}", file=sys.stderr)
        return 1
    finally:
        net.destroy()
        if given.keep:
            print(f"record: kept {work}", file=sys.stderr)
        else:
            shutil.rmtree(work, ignore_errors=True)


def stop(number: int, _frame) -> None:
    """Ends the recording by the way that cleans up; later signals do not interrupt that."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def prerequisites() -> list[str]:
    """What is missing, as instructions; empty if all is there."""
    if os.geteuid() != 0:
        return ["root (network namespaces, capture)"]
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if subprocess.run([sys.executable, "-c", "import requests"], capture_output=True, check=False).returncode:
        packages.append("python3-requests")
    missing = [f"Debian packages (apt-get install): {' '.join(sorted(packages))}"] if packages else []
    if not packages and not (CLIENT_DIR / "node_modules/playwright-core").is_dir():
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=CLIENT_DIR,
                              capture_output=True, text=True, check=False)
        if done.returncode:
            missing.append(f"playwright-core (npm ci in {CLIENT_DIR} failed: {done.stderr.strip()[-300:]})")
    return missing


def record(work: Path, output: Path) -> int:
    """One recording from empty namespaces to the files in `output`."""
    net.destroy()
    versions = provenance.versions()
    namespaces = net.create([address for client in CLIENTS for address in client.src_ips])
    server.prepare(work)
    processes = server.start(work)
    # The readiness probe is not part of the recording.
    (work / "access.raw").write_text("")
    (work / "result").mkdir()

    truth = run_clients(work, namespaces, versions)
    time.sleep(DRAIN_S)
    for process in processes:
        process.terminate()
        process.wait(timeout=20)

    result = work / "result"
    requests = requestlog.convert(work / "access.raw", work / "header_names.raw", result / "requests.jsonl")
    with (result / "truth.jsonl").open("w") as out:
        out.writelines(json.dumps(one) + "\n" for one in truth)
    shutil.copy(HERE / "asn.csv", result / "asn.csv")
    problems = verify.compare(result)
    if problems:
        print("\n".join(f"record: {problem}" for problem in problems), file=sys.stderr)
        return 1
    provenance.write(result, versions, CAPTURE_FILTER, truth, requests)
    output.mkdir(parents=True, exist_ok=True)
    for file in result.iterdir():
        shutil.copy(file, output / file.name)
    print(f"record: {len(requests)} requests in {output}")
    return 0


def run_clients(work: Path, namespaces: dict[str, str], versions: dict[str, str]) -> list[dict]:
    """Captures while every client runs at its time; returns the ground truth."""
    origin = time.monotonic() - min(client.start for client in CLIENTS)
    capture = None
    running = []
    counts = {}
    for client in sorted(CLIENTS, key=lambda one: one.start):
        if capture is None and client.start >= 0:
            wait_until(origin)
            capture = start_capture(work)
        wait_until(origin + client.start)
        collect(work, running, counts)
        running += [(client, address, start_client(work, client, address, namespaces[address], versions))
                    for address in client.src_ips]
    while len(counts) < len(running):
        collect(work, running, counts)
        if time.monotonic() > origin + CLIENT_LIMIT_S:
            late = [client.client for client, address, _ in running if address not in counts]
            raise RuntimeError(f"does not end: {', '.join(late)}")
        time.sleep(0.2)
    time.sleep(DRAIN_S)
    stop_capture(work, capture)
    return [truth_of(client, counts, versions) for client in CLIENTS]


def collect(work: Path, running: list, counts: dict[str, dict]) -> None:
    """Takes the counts of the clients that have ended; one that failed ends the recording."""
    for client, address, process in running:
        if address in counts or process.poll() is None:
            continue
        if process.returncode:
            complaint = (work / f"client-{address}.err").read_text()
            raise RuntimeError(f"{client.client} from {address} ended with {process.returncode}: {complaint[-2000:]}")
        counts[address] = json.loads((work / f"client-{address}.out").read_text().splitlines()[-1])


def truth_of(client: Client, counts: dict[str, dict], versions: dict[str, str]) -> dict:
    """A line of truth.jsonl; its hellos are those that the capture must hold."""
    mine = [counts[address] for address in client.src_ips]
    return {
        "client": client.client,
        "kind": client.kind,
        "src_ips": list(client.src_ips),
        "bot": client.bot,
        "expect_detected": client.expect_detected,
        "user_agent": substitute(client.user_agent, versions),
        "requests": sum(one["requests"] for one in mine),
        "hellos": sum(one["hellos"] for one in mine) - client.before_capture,
        "note": client.note,
    }


def start_client(work: Path, client: Client, address: str, name: str, versions: dict[str, str]) -> subprocess.Popen:
    """Starts a client in its namespace."""
    program, script, *arguments = (substitute(word, versions) for word in client.command)
    interpreter = {"python": sys.executable, "node": "node", "sh": "sh"}[program]
    number = [one for client in CLIENTS for one in client.src_ips].index(address)
    # Nothing is inherited: a proxy or a certificate bundle set in the caller's shell would change what clients do.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "LANG": "C.UTF-8",
        "JA4REC_CA": str(work / "ca.pem"),
        "JA4REC_SEED": str(SEED * 1000 + number),
        "JA4REC_DURATION": str(DURATION_S - max(client.start, 0)),
        "NODE_EXTRA_CA_CERTS": str(work / "ca.pem"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(work),
    }
    with (work / f"client-{address}.out").open("w") as out, (work / f"client-{address}.err").open("w") as err:
        return subprocess.Popen(net.inside(name, interpreter, script, *arguments), cwd=CLIENT_DIR, env=environment,
                                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


def start_capture(work: Path) -> subprocess.Popen:
    """Starts tcpdump on the bridge and waits until it listens."""
    command = net.inside(net.SERVER, "tcpdump", "-i", net.BRIDGE, "-n", "-s", "0", "-B", "8192", "-U", "-Z", "root",
                         "-w", str(work / "result/capture.pcap"), CAPTURE_FILTER)
    with (work / "tcpdump.err").open("w") as err:
        capture = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
                                   start_new_session=True)
    for _ in range(100):
        if "listening on" in (work / "tcpdump.err").read_text():
            return capture
        if capture.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"tcpdump does not capture: {(work / 'tcpdump.err').read_text()}")


def stop_capture(work: Path, capture: subprocess.Popen) -> None:
    """Ends tcpdump; a packet that the kernel dropped makes the recording worthless."""
    capture.terminate()
    capture.wait(timeout=20)
    said = (work / "tcpdump.err").read_text()
    if not re.search(r"^0 packets dropped by kernel", said, re.MULTILINE):
        raise RuntimeError(f"tcpdump lost packets: {said}")


def substitute(text: str, versions: dict[str, str]) -> str:
    """Puts tool versions into a User-Agent."""
    numbers = {
        "major": re.search(r"Chromium (\d+)", versions["chromium"])[1],
        "curl": versions["curl"].split()[1],
        "wget": versions["wget"].split()[2],
        "requests": versions["python3-requests"],
    }
    return re.sub(r"\{(\w+)\}", lambda found: numbers[found[1]], text)


def wait_until(moment: float) -> None:
    """Sleeps until a time of time.monotonic's clock."""
    time.sleep(max(0.0, moment - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
