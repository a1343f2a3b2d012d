"""Clients of the site: curl, browsers, and two that say that they are Chrome."""

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.servers.debian import HOST
from tests.support import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.0.0 Safari/537.36"
# What Chrome 140 sends besides: the client hints, without the fetch metadata.
HINTS = {
    "User-Agent": CHROME.format(140), "Accept": "text/html,application/xhtml+xml", "Accept-Language": "en-US,en;q=0.9",
    "Sec-CH-UA": '"Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"', "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
}


@dataclass(frozen=True)
class Sent:
    """A request as its client knows it. `target` as it stands in the request line; `agent` None for no such header."""

    target: str
    port: int
    status: int
    method: str = "GET"
    agent: str | None = None


# Options of curl, one run each: targets (a `#` becomes the request's number) are asked for on one connection if it can.
PLAIN = {
    "HTTP/1.1": (["--http1.1"], ["/?n=#", "/page-1.html?n=#", "/missing?n=#", "/?n=#"]),
    "HTTP/2": (["--http2"], ["/?n=#", "/style.css?n=#", "/missing?n=#", "/?n=#", "/page-2.html?n=#"]),
    "HTTP/1.0": (["--http1.0", "--no-alpn"], ["/?n=#"]),
    "TLS 1.2": (["--http1.1", "--tls-max", "1.2"], ["/?n=#", "/?n=#"]),
    "HEAD": (["--head"], ["/?n=#"]),
    "POST": (["--data", "user=a&password=b"], ["/login?n=#"]),
    "OPTIONS": (["--request", "OPTIONS", "--http1.1"], ["/?n=#"]),
    "target": (["--path-as-is"], ["/a%20b/./../page-1.html?n=#&q=%22x%22", "//page-1.html?n=#", "/%C3%BC?n=#", "/caf%E9?n=#"]),
    "absolute": (["--request-target", f"https://{HOST}/page-1.html?n=0", "--http1.1"], ["/"]),
    "no headers": (["--header", "Accept:"], ["/?n=#"]),
    "host": (["--header", f"Host: {HOST.upper()}:443", "--http1.1"], ["/?n=#"]),
    "cookie": (["--cookie", "a=b"], ["/?n=#"]),
}
# User-Agents that a log has to escape; None for none. The last ones are no UTF-8.
AGENTS = [None, 'quo"ted \\ agent', "tab\tagent", "agent/ü €", "-", b"agent/\xff".decode("utf-8", "surrogateescape"),
          b"agent/\xc3".decode("utf-8", "surrogateescape")]


class Curl:
    """Runs of curl, with what it sent and from which port."""

    def __init__(self, prefix: tuple[str, ...], directory: Path) -> None:
        self.prefix, self.directory = prefix, directory
        self.sent: list[Sent] = []
        self.count = 0

    def run(self, options: list[str], targets: list[str], method: str = "GET", agent: str | None = "test") -> None:
        """Asks for the targets in one run."""
        numbered = []
        for target in targets:
            self.count += 1
            numbered.append(target.replace("#", str(self.count)))
        # An empty User-Agent takes the header away.
        command = ["curl", "--silent", "--show-error", "--cacert", str(self.directory / "ca.pem"), "--user-agent", agent or "",
                   "--write-out", "%{local_port} %{response_code}\n", *options]
        outputs = [word for _ in numbered for word in ("--output", "/dev/null")]
        urls = [f"https://{HOST}{target}" for target in numbered]
        done = subprocess.run([*self.prefix, *map(os.fsencode, (*command, *outputs, *urls))], capture_output=True, text=True,
                              timeout=60, check=False)
        if done.returncode != 0:
            raise AssertionError(f"curl {options}: {done.stderr}")
        if "--request-target" in options:
            numbered = [options[1]]
        for target, answer in zip(numbered, done.stdout.splitlines(), strict=True):
            port, status = map(int, answer.split())
            self.sent.append(Sent(target, port, status, method, agent))

    def all(self) -> list[Sent]:
        """Everything that a program would send, and what nobody should."""
        for name, (options, targets) in PLAIN.items():
            self.run(options, targets, method=name if name in ("HEAD", "POST", "OPTIONS") else "GET")
        for agent in AGENTS:
            # HTTP/2 of nginx knows no tab there.
            self.run(["--http1.1"] if agent and "\t" in agent else [], ["/agent?n=#", "/agent?n=#"], agent=agent)
        # No request at all: the server refuses it, and logs that.
        subprocess.run([*self.prefix, "openssl", "s_client", "-quiet", "-connect", f"{HOST}:443", "-servername", HOST],
                       input=b"garbage\r\n\r\n", capture_output=True, timeout=60, check=False)
        return self.sent


def fake_by_curl(prefix: tuple[str, ...], directory: Path) -> list[Sent]:
    """Says Chrome and nothing else."""
    curl = Curl(prefix, directory)
    curl.run(["--http2"], [f"/page-{number}.html?fake=curl" for number in range(1, 6)], agent=CHROME.format(140))
    return curl.sent


def fake_by_python(prefix: tuple[str, ...], directory: Path) -> list[Sent]:
    """Says Chrome, with its client hints."""
    done = subprocess.run([*prefix, sys.executable, "-m", "tests.servers.clients", directory / "ca.pem"], capture_output=True,
                          text=True, timeout=60, check=True)
    return [Sent(*fields, agent=HINTS["User-Agent"]) for fields in json.loads(done.stdout)]


def as_chrome(authority: str) -> list[tuple[str, int, int]]:
    """Five requests with Chrome's hints from Python; target, port and status of each."""
    connection = http.client.HTTPSConnection(HOST, context=ssl.create_default_context(cafile=authority), timeout=30)
    sent = []
    for number in range(1, 6):
        target = f"/page-{number}.html?fake=python"
        connection.request("GET", target, headers=HINTS)
        answer = connection.getresponse()
        answer.read()
        sent.append((target, connection.sock.getsockname()[1], answer.status))
    connection.close()
    return sent


def trust(authority: Path, database: Path) -> None:
    """Makes a browser's database of certificates that has the authority."""
    database.mkdir(parents=True, exist_ok=True)
    for command in (("-N", "--empty-password"), ("-A", "-t", "C,,", "-n", "test", "-i", str(authority))):
        subprocess.run(["certutil", "-d", f"sql:{database}", *command], check=True, capture_output=True)


def chromium(prefix: tuple[str, ...], directory: Path, is_over: Callable[[], object]) -> None:
    """A visit with Chromium. Without a window it would say so in its User-Agent, and nowhere else."""
    home = directory / "chromium"
    trust(directory / "ca.pem", home / ".pki/nssdb")
    version = subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True, check=True, env=at_home(home)).stdout
    agent = CHROME.format(re.search(r"(\d+)\.", version)[1])
    browse([*prefix, CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server", "--lang=en-US",
            f"--user-agent={agent}", f"--user-data-dir={home / 'profile'}", "--remote-debugging-port=0",
            f"https://{HOST}/page-1.html?from=chromium"], home, is_over)


def firefox(prefix: tuple[str, ...], directory: Path, is_over: Callable[[], object]) -> None:
    """A visit with Firefox."""
    home = directory / "firefox"
    profile = home / "profile"
    trust(directory / "ca.pem", profile)
    (profile / "user.js").write_text(
        'user_pref("browser.shell.checkDefaultBrowser", false);\nuser_pref("datareporting.policy.dataSubmissionEnabled", false);\n'
        'user_pref("network.dns.disableIPv6", true);\n')
    browse([*prefix, FIREFOX, "--headless", "--profile", profile, f"https://{HOST}/page-1.html?from=firefox"], home, is_over)


def browse(command: list, home: Path, is_over: Callable[[], object]) -> None:
    """Runs a browser until the visit is over."""
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=at_home(home))
    try:
        wait_for("the visit's end", lambda: is_over() or process.poll() is not None, limit_s=150, pause_s=0.3)
        if not is_over():
            raise AssertionError(f"{command[4]} ended:\n{(home / 'said').read_text(errors='replace')[-2000:]}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def at_home(home: Path) -> dict[str, str]:
    """The environment of a browser whose home is there."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(home)}


if __name__ == "__main__":
    print(json.dumps(as_chrome(sys.argv[1])))
