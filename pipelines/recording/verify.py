"""Checks a finished recording: what the clients counted against the log and against the capture.

Run alone it checks the committed recording: `verify.py [directory]`.
"""

import collections
import json
import sys
from pathlib import Path

import net

HELLO_FIELDS = ("ip.src", "ipv6.src")


def compare(directory: Path) -> list[str]:
    """Prints one line per client and returns the disagreements."""
    truth = [json.loads(line) for line in (directory / "truth.jsonl").read_text().splitlines()]
    logged = collections.Counter(
        json.loads(line)["src_ip"] for line in (directory / "requests.jsonl").read_text().splitlines())
    captured = hellos(directory / "capture.pcap")
    wrong = []
    print(f"{'client':<22}{'kind':<10}{'requests':>9}{'logged':>8}{'hellos':>8}{'captured':>9}")
    for one in truth:
        in_log = sum(logged.pop(ip, 0) for ip in one["src_ips"])
        in_capture = sum(captured.pop(ip, 0) for ip in one["src_ips"])
        fits = (one["requests"], one["hellos"]) == (in_log, in_capture)
        print(f"{one['client']:<22}{one['kind']:<10}{one['requests']:>9}{in_log:>8}{one['hellos']:>8}{in_capture:>9}"
              f"{'' if fits else '   differs'}")
        if not fits:
            wrong.append(f"{one['client']}: counted {one['requests']} requests and {one['hellos']} hellos, "
                         f"the log has {in_log} and the capture {in_capture}")
    wrong += [f"{ip}: {count} requests in the log, in no client's truth" for ip, count in logged.items()]
    wrong += [f"{ip}: {count} hellos in the capture, in no client's truth" for ip, count in captured.items()]
    return wrong


def hellos(capture: Path) -> collections.Counter:
    """ClientHellos by source address, as tshark finds them."""
    fields = [word for field in HELLO_FIELDS for word in ("-e", field)]
    text = net.run("tshark", "-r", str(capture), "-Y", "tls.handshake.type == 1", "-T", "fields", *fields)
    return collections.Counter(line.strip() for line in text.splitlines())


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "demo"
    problems = compare(where)
    print("\n".join(problems), file=sys.stderr)
    sys.exit(1 if problems else 0)
