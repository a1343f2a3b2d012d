#!/usr/bin/env python3
"""Makes the table of browsers for enrich.browser: which browser's TLS a JA4 is of.

Usage (as root): browser_table.py --python VENV_PYTHON [--output FILE] [--browsers DIRECTORY] BINARY

Each profile of curl-cffi, which are recordings of real browsers, and each browser that is installed opens connections
to a server on the loopback interface, under names of several lengths (the padding extension depends on it) and a second
time (a resumed connection has another JA4). This project's own sensor reads the hellos. What a connection is of is in
the name that it asks for. Nothing leaves the machine.
"""

import argparse
import csv
import datetime
import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# The second makes Chrome's hello, before it had post-quantum key shares, so long that it is not padded.
SUFFIXES = (".test", "." + "padding" * 8 + "." + "padding" * 8 + ".test")
FAMILIES = (
    ("chrome", "Chrome", "BoringSSL"),
    ("edge", "Edge", "BoringSSL"),
    ("safari", "Safari", "Apple"),
    ("firefox", "Firefox", "NSS"),
    ("tor", "Firefox", "NSS"),
)

BROWSER_S = 20

# Of whom curl-cffi's resumed hellos are the browser's own: Chromium's are. Firefox leaves the extension session_ticket
# out when it resumes, curl-cffi does not, so that these hellos would be of an imitator; of Safari it is not known.
RESUMED_ALIKE = {"Chrome", "Edge"}
PRE_SHARED_KEY = "0029"

# Run with the Python that has curl-cffi: every profile, twice under each name.
PROFILES = """
import json, sys
import curl_cffi
from curl_cffi import CurlOpt, requests
from curl_cffi.requests.impersonate import BrowserType
port, suffixes = int(sys.argv[1]), json.loads(sys.argv[2])
print(curl_cffi.__version__)
for profile in sorted({one.value for one in BrowserType}):
    for number, suffix in enumerate(suffixes):
        name = profile.replace("_", "-").replace(".", "-") + suffix
        resolve = {CurlOpt.RESOLVE: [f"{name}:{port}:127.0.0.1"]}
        with requests.Session(impersonate=profile, verify=False, curl_options=resolve) as session:
            for _ in range(2):
                try:
                    session.get(f"https://{name}:{port}/", headers={"Connection": "close"}, timeout=10)
                except Exception as error:
                    print(profile, error, file=sys.stderr)
"""


class Page(http.server.BaseHTTPRequestHandler):
    """Answers and closes, so that the picture needs a connection of its own."""

    def do_GET(self):
        body = b"<!doctype html><title>t</title><img src=/a.png><img src=/b.png>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing is logged."""


class Server(http.server.ThreadingHTTPServer):
    """A TLS server whose handshakes are in the connections' own threads."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext):
        super().__init__(("127.0.0.1", 0), Page)
        self.context = context

    def finish_request(self, request, client_address):
        try:
            with self.context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)
        except OSError:
            pass  # a client that does not trust the certificate has sent its hello all the same


def certificate(work: Path, names: list[str]) -> ssl.SSLContext:
    """A server's context, with a certificate for the names by an authority of its own. Browsers that trust it resume."""
    openssl = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    authority = ("-subj", "/CN=authority", "-keyout", work / "ca.key", "-out", work / "ca.pem")
    signed = ("-CA", work / "ca.pem", "-CAkey", work / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    own = ("-subj", "/CN=test", "-keyout", work / "key.pem", "-out", work / "cert.pem")
    for more in (authority, (*own, *signed, "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names))):
        subprocess.run([*openssl, *more], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "cert.pem", work / "key.pem")
    context.set_alpn_protocols(["http/1.1"])
    return context


def installed(more: Path | None) -> list[tuple[str, str, str]]:
    """(path, family, version) of Debian's browsers and of unpacked ones."""
    paths = [path for path in ("/usr/bin/chromium", "/usr/bin/firefox-esr") if os.access(path, os.X_OK)]
    paths += (
        [
            str(path)
            for path in sorted(more.glob("*/usr/lib/*/*"))
            if path.name in ("chromium", "firefox-esr") and path.is_file() and os.access(path, os.X_OK)
        ]
        if more
        else []
    )
    found = []
    for path in paths:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        found.append((path, "Firefox" if "irefox" in path else "Chrome", re.search(r"\d+", said)[0]))
    return found


def visit(work: Path, path: str, name: str, port: int) -> None:
    """Opens a page with a browser, twice in one session."""
    home = Path(tempfile.mkdtemp(dir=work))
    url = f"https://{name}:{port}/"
    if "irefox" in path:
        profile = home / "profile"
        profile.mkdir()
        database = f"sql:{profile}"
        subprocess.run(["certutil", "-d", database, "-N", "--empty-password"], check=True)
        subprocess.run(
            ["certutil", "-d", database, "-A", "-t", "C,,", "-n", "test", "-i", work / "ca.pem"], check=True
        )
        (profile / "user.js").write_text('user_pref("network.dns.forceResolve", "127.0.0.1");\n')
        command = [
            path,
            "--headless",
            "--no-remote",
            "--profile",
            str(profile),
            "--screenshot",
            str(home / "a.png"),
            url,
        ]
    else:
        command = [
            path,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--ignore-certificate-errors",
            f"--user-data-dir={home}/profile",
            "--host-resolver-rules=MAP * 127.0.0.1",
            f"--screenshot={home}/a.png",
            url,
        ]
    try:
        subprocess.run(
            command, env={**os.environ, "HOME": str(home)}, capture_output=True, timeout=BROWSER_S, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"browser_table: {path} does not end", file=sys.stderr)


def family_of(profile: str) -> tuple[str, str]:
    """Family and TLS library of a profile of curl-cffi."""
    return next((family, library) for word, family, library in FAMILIES if profile.startswith(word))


def table(
    hellos: list[dict], browsers: dict[str, tuple[str, str, str]], version: str
) -> list[tuple[str, str, str, str]]:
    """Rows of the table: one for each JA4 and family, with all that have sent it."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for hello in hellos:
        label = (hello.get("tls_sni") or "").split(".")[0]
        if label in browsers:
            family, library, context = browsers[label]
        elif any(label.startswith(word) for word, *_ in FAMILIES):
            (family, library), context = family_of(label), label
            if family not in RESUMED_ALIKE and PRE_SHARED_KEY in hello["ja4_r"].split("_")[2].split(","):
                continue
        else:
            continue
        contexts = found.setdefault((hello["ja4"], family, library), [])
        if context not in contexts:
            contexts.append(context)

    def said(contexts: list[str]) -> str:
        own = [one for one in contexts if " " in one]
        copied = sorted(one for one in contexts if " " not in one)
        return "; ".join(own + ([f"curl-cffi {version}: {' '.join(copied)}"] if copied else []))

    return [(ja4, family, library, said(contexts)) for (ja4, family, library), contexts in sorted(found.items())]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--python", required=True, help="a Python with curl-cffi")
    options.add_argument("--browsers", type=Path, help="a directory of unpacked browsers")
    options.add_argument(
        "--output", type=Path, default=Path(__file__).resolve().parents[1] / "pipelines/reference/browser_ja4.csv"
    )
    options.add_argument("--keep", type=Path, help="a table whose rows of programs (families that are no browser) stay")
    options.add_argument("binary")
    given = options.parse_args()
    work = Path(tempfile.mkdtemp(prefix="browser-table-"))
    try:
        own = installed(given.browsers)
        server = Server(certificate(work, [f"own{number}{suffix}" for number in range(len(own)) for suffix in SUFFIXES]))
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        capture = subprocess.Popen(
            [
                "tcpdump",
                "-i",
                "lo",
                "-n",
                "-s",
                "0",
                "-U",
                "-Z",
                "root",
                "-w",
                work / "lo.pcap",
                f"tcp and dst port {port}",
            ],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(2)
        said = subprocess.run(
            [given.python, "-c", PROFILES, str(port), json.dumps(SUFFIXES)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        browsers = {}
        for number, (path, family, version) in enumerate(own):
            browsers[f"own{number}"] = (
                family,
                "NSS" if family == "Firefox" else "BoringSSL",
                f"{'Firefox ESR' if family == 'Firefox' else 'Chromium'} {version} on Debian",
            )
            for suffix in SUFFIXES:
                visit(work, path, f"own{number}{suffix}", port)
        time.sleep(1)
        capture.terminate()
        capture.wait(timeout=20)
        text = subprocess.run(
            [given.binary, "fingerprint", work / "lo.pcap"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        made = table([json.loads(line) for line in text.splitlines()], browsers, said.stdout.split()[0])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    known = {family for _, family, _ in FAMILIES}
    if given.keep:
        with given.keep.open(newline="") as file:
            made += [tuple(row) for row in csv.reader(file) if row and row[1] not in known | {"browser_family"}]
    with given.output.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("ja4", "browser_family", "tls_library", "context"))
        writer.writerows(made)
    print(
        f"{len(made)} rows in {given.output}, of {datetime.date.today()}, curl-cffi {said.stdout.split()[0]}, "
        + ", ".join(context for *_, context in browsers.values())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
