"""PROVENANCE.md of a recording: when, where, with what, and the hashes of the result."""

import hashlib
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path

import net
from roster import SERVER_V4, SERVER_V6


def versions() -> dict[str, str]:
    """The first line in which each tool states its version."""
    def first(*command: str) -> str:
        return net.run(*command).strip().splitlines()[0]

    return {
        "apache2": first("apache2", "-v").removeprefix("Server version: "),
        "chromium": first("chromium", "--version"),
        "curl": " ".join(first("curl", "--version").split()[:2]),
        "ethtool": first("ethtool", "--version"),
        "iproute2": first("ip", "-V"),
        "node": first("node", "--version"),
        "openssl": first("openssl", "version"),
        "playwright-core": (Path(__file__).parent / "clients/package.json").read_text()
        .split('"playwright-core": "')[1].split('"')[0],
        "python3": platform.python_version(),
        "python3-requests": first(sys.executable, "-c", "import requests; print(requests.__version__)"),
        "python3 ssl": first(sys.executable, "-c", "import ssl; print(ssl.OPENSSL_VERSION)"),
        "tcpdump": first("tcpdump", "--version"),
        "tshark": first("tshark", "--version"),
        "wget": first("wget", "--version"),
    }


def write(directory: Path, tools: dict[str, str], capture_filter: str, truth: list[dict], requests: list[dict]) -> None:
    """Writes PROVENANCE.md beside the files that it describes."""
    files = [(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
             for file in sorted(directory.iterdir()) if file.name != "PROVENANCE.md"]
    first, last = min(one["time"] for one in requests), max(one["time"] for one in requests)
    lines = [
        "# Provenance of this recording",
        "",
        f"Made {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by `make record` (`pipelines/recording/record.py`), "
        f"{len(requests)} requests from {first} to {last}, "
        f"{sum(one['hellos'] for one in truth)} ClientHellos, {len(truth)} clients.",
        "",
        f"Host: {platform.system()} {platform.release()} {platform.machine()}, "
        f"{platform.freedesktop_os_release()['PRETTY_NAME']}.",
        "",
        f"Network: a namespace for each client address, joined by veth pairs and a bridge to the namespace of the "
        f"server ({SERVER_V4}, {SERVER_V6}; ports 443 and 8443); MTU 1500, offloads off, no added delay or loss, no "
        "router between (TTL and hop limit arrive as sent). All addresses are from documentation ranges; all names end "
        "in .test; no traffic left the machine.",
        "",
        "Clients: `truth.jsonl`; `requests` and `hellos` are counted by the client itself (browsers: Chromium's NetLog) and were "
        "found equal to the log and to tshark's count in the capture. `expect_detected` null: either answer is right. "
        "`resumed-poller` connected before the capture began, so that its requests have no hello.",
        "",
        "Capture: `tcpdump -s 0` on the bridge, before the first client except resumed-poller, with the filter",
        "",
        f"    {capture_filter}",
        "",
        "so the server's payload is missing on purpose. tcpdump reported no dropped packets. Time stamps of capture and log "
        "are of one clock and unchanged.",
        "",
        "Request log: Apache's CustomLog and the header names of mod_log_forensic, converted to JSON lines. `timestamp` "
        "is when Apache had read the request line, in microseconds, times 1000; `response_size` is the body's; header names "
        "are as in Apache's table: in HTTP/2, mod_http2 writes them in Camel-Case and adds Host at the end. Cookies and "
        "Authorization are logged as present or not. To plain HTTP on a TLS port Apache answers 400 and logs `GET / HTTP/1.0` "
        "whatever was sent.",
        "",
        "| tool | version |",
        "|---|---|",
        *(f"| {name} | {version} |" for name, version in tools.items()),
        "",
        "| file | bytes | SHA-256 |",
        "|---|---|---|",
        *(f"| {name} | {size} | `{digest}` |" for name, size, digest in files),
        "",
    ]
    (directory / "PROVENANCE.md").write_text("\n".join(lines))
