"""Debian's Apache, real clients, and beside them forged segments that the server drops: for each connection in Apache's log
the sensor has the fingerprint of the client that made it, or a flag; and no other fingerprint without a flag.

Three namespaces: clients, a router, Apache. One capture is where the clients' packets enter the router, with what the router
drops; the other where they reach the server, with what only the server drops. Once checksums are made as for a wire, once
they are left to a card that there is not, so that the captures see them open. tests/sensor/forging.py lists what is forged.

With KEEP=DIRECTORY the packets of each connection that failed are kept there.
"""

import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.namespaces import cable, ip, made
from tests.sensor.forger import CLIENTS, MOMENTS, Case as Connection
from tests.sensor.forging import KINDS, LAYOUTS, PORT
from tests.support import ENGINE, OK, PIPELINES, ROOT, Case, wait_for

_spec = importlib.util.spec_from_file_location("hellos", PIPELINES / "tests/oracle/hellos.py")
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

KEEP = os.environ.get("KEEP")
HOST = "www.example.test"
CLIENT, ROUTER, BEHIND, SERVER = "192.0.2.20", "192.0.2.1", "198.51.100.1", "198.51.100.10"
# Where the sensors capture.
POINTS = ("router", "server")
# Connections that clients open themselves, as many at each time as there are kinds of which a client does not hear.
RACES = 27
LIMIT_S = 240
# Segments of a flood, and of which kinds.
FLOOD = 600
FLOODS = ("checksum", "acknowledges too little", "TTL", "other SYN", "behind the window", "old clock")
# A hello waits for 400 ms for another version of it. Where a busy machine takes longer from one to the other, the first may have left.
SLOW_S = 0.3

APACHE = """\
ServerRoot "{run}"
ServerName {host}
DefaultRuntimeDir "{run}"
PidFile "{run}/httpd.pid"
ErrorLog "{run}/error.log"
User www-data
Group www-data
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule ssl_module {modules}/mod_ssl.so
KeepAlive Off
Listen {address}:{port}
# A connection is there when its handshake is over. By Linux's default it would be with the first data, and some of what comes
# in between would end it.
AcceptFilter https none
LogFormat "%{{remote}}p %>s %{{SSL_PROTOCOL}}x %{{SSL_CIPHER}}x %q" connections
<VirtualHost {address}:{port}>
    ServerName {host}
    SSLEngine on
    SSLCertificateFile "{run}/cert.pem"
    SSLCertificateKeyFile "{run}/key.pem"
    Redirect 204 /
    CustomLog "{run}/access.log" connections
</VirtualHost>
"""

PIPELINE = """\
name: forged
nodes:
  - { id: packets, kind: source.pcap, interface: web0 }
  - { id: hellos, kind: tls.client_hello, from: packets }
  - { id: out, kind: sink.jsonl, from: hellos, path: rows }
"""

# What Apache has to log of a client; with the others it agrees on the same.
NEGOTIATED = {
    "curl 1.2": "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256", "openssl 1.2": "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305",
    "openssl": "TLSv1.3 TLS_AES_128_GCM_SHA256",
}
BEST = "TLSv1.3 TLS_AES_256_GCM_SHA384"


class Forged(Case):
    def setUp(self) -> None:
        super().setUp()
        self.client, self.router, self.server = made(
            self, "client", "router", "server", needs=("apache2", "curl", "dumpcap", "ethtool", "openssl", "tshark"))
        self.addCleanup(self.sweep)
        cable((self.client, "eth0", CLIENT), (self.router, "r0", ROUTER))
        cable((self.router, "r1", BEHIND), (self.server, "web0", SERVER))
        ip("-n", self.client, "route", "add", "default", "via", ROUTER)
        ip("-n", self.server, "route", "add", "default", "via", BEHIND)
        # The router lets source routes pass, the server does not.
        for name, devices, value in ((self.router, ("r0", "r1"), 1), (self.server, ("web0",), 0)):
            files = ["ip_forward", *(f"conf/{device}/accept_source_route" for device in ("all", *devices))]
            self.inside(name, "sh", "-c", "; ".join(f"echo {value} > /proc/sys/net/ipv4/{file}" for file in files))
        # Apache's children are of another user.
        self.directory.chmod(0o755)

    def sweep(self) -> None:
        """Ends what is left in the namespaces."""
        for name in (self.client, self.router, self.server):
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
            for process in found.split():
                try:
                    os.kill(int(process), signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def inside(self, namespace: str, *command: object) -> None:
        """Runs a command in a namespace."""
        subprocess.run(["ip", "netns", "exec", namespace, *map(str, command)], check=True, capture_output=True, text=True)

    def begin(self, namespace: str, *command: object, name: str) -> subprocess.Popen:
        """Starts a program in a namespace, its outputs in files; ended with the test."""
        with self.path(f"{name}.out").open("wb") as out, self.path(f"{name}.err").open("wb") as err:
            process = subprocess.Popen(["ip", "netns", "exec", namespace, *map(str, command)], stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=err, cwd=ROOT)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen) -> None:
        """Ends a program."""
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def path(self, name: str) -> Path:
        """A file in the test's directory."""
        return self.directory / name

    def said(self, name: str) -> str:
        """What a program said on standard error."""
        return self.path(f"{name}.err").read_text()

    def wait(self, name: str, process: subprocess.Popen, condition: "callable") -> None:
        """Waits until a program is ready."""
        wait_for(name, lambda: process.poll() is not None or condition())
        self.assertIsNone(process.poll(), self.said(name))

    def offload(self, checksums: bool) -> None:
        """Makes checksums where packets are sent, or leaves them, and what else a card does, to nobody."""
        switches = itertools.chain.from_iterable((what, "off" if checksums else "on") for what in ("tx", "rx", "tso", "gso"))
        switches = (*switches, "gro", "off")
        for name, device in ((self.client, "eth0"), (self.router, "r0"), (self.router, "r1"), (self.server, "web0")):
            self.inside(name, "ethtool", "-K", device, *switches)

    def serve(self) -> None:
        """Starts Apache."""
        run = self.directory
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", run / "key.pem",
             "-out", run / "cert.pem"],
            check=True, capture_output=True)
        text = APACHE.format(run=run, host=HOST, modules="/usr/lib/apache2/modules", address=SERVER, port=PORT)
        process = self.begin(self.server, "apache2", "-f", self.write("httpd.conf", text), "-DFOREGROUND", name="apache")
        log = self.path("error.log")
        self.wait("apache", process, lambda: log.exists() and "resuming normal operations" in log.read_text())

    def capture(self) -> list[subprocess.Popen]:
        """Starts the sensors, the command at the router and a pipeline at the server, and a recording at each."""
        for point, name, device in (("router", self.router, "r0"), ("server", self.server, "web0")):
            recorder = f"dumpcap-{point}"
            process = self.begin(name, "dumpcap", "-q", "-i", device, "-w", self.path(f"{point}.pcapng"), name=recorder)
            self.wait(recorder, process, lambda: "File:" in self.said(recorder))
        command = self.begin(self.router, ENGINE, "fingerprint", "-i", "r0", name="router")
        pipeline = self.begin(self.server, ENGINE, "run", self.write("forged.yaml", PIPELINE), name="server")
        tasks = Path(f"/proc/{pipeline.pid}/task")
        self.wait("router", command, lambda: "capturing on" in self.said("router"))
        self.wait("server", pipeline, lambda: any((task / "comm").read_text() == "pcap web0\n" for task in tasks.iterdir()))
        return [command, pipeline]

    def forge(self, cases: list[Connection]) -> dict[int, dict]:
        """Makes the connections; what is known of each by its number."""
        plan = {"cases": [asdict(case) for case in cases], "devices": ["eth0", "r1"], "behind": self.router, "router": ROUTER,
                "server": SERVER, "host": HOST, "ca": str(self.path("cert.pem"))}
        process = self.begin(self.client, sys.executable, "-m", "tests.sensor.forger", self.write("plan", json.dumps(plan)),
                             name="forger")
        try:
            self.assertEqual(process.wait(LIMIT_S), 0, self.said("forger"))
        finally:
            facts = {line["number"]: line for line in map(json.loads, self.path("forger.out").read_text().splitlines())}
            errors = [f"{named(cases[number])}: {line['error']}" for number, line in facts.items() if line["error"]]
            self.assertFalse(errors, "\n".join(errors))
        self.assertEqual(set(facts), {case.number for case in cases})
        return facts

    def logged(self, cases: list[Connection]) -> dict[int, tuple[int, str]]:
        """Port and what was negotiated of each connection that Apache served, by the number that the client asked for."""
        def lines() -> list[list[str]]:
            return [line.split() for line in self.path("access.log").read_text().splitlines()]
        wait_for("Apache's log", lambda: len(lines()) >= len(cases))
        self.assertEqual({status for _, status, *_ in lines()}, {"204"})
        found = {int(query[1:]): (int(port), f"{protocol} {cipher}") for port, _, protocol, cipher, query in lines()}
        self.assertEqual((len(found), len(lines())), (len(cases), len(cases)))
        return found

    def rows(self) -> dict[str, dict[int, list[dict]]]:
        """The hellos of each sensor by the client's port: those of the interfaces, and what the recordings give if the server's
        segments are not seen.
        """
        outputs = {"router": self.path("router.out").read_text(), "server": self.path("rows").read_text()}
        for point in POINTS:
            # Fragments have no ports.
            run = self.engine("fingerprint", "-f", f"dst port {PORT} or ip[6:2] & 0x3fff != 0", self.path(f"{point}.pcapng"))
            self.assert_exit(run, OK)
            outputs[f"{point} one way"] = run.stdout
        found = {}
        for name, text in outputs.items():
            rows = found[name] = {}
            for row in map(json.loads, text.splitlines()):
                rows.setdefault(row["src_port"], []).append(row)
        return found

    def open_checksums(self) -> int:
        """How many SYNs of clients have no right checksum where they reach the server."""
        wanted = f"tcp.dstport=={PORT} && tcp.flags.syn==1 && tcp.checksum.status!=1"
        shown = subprocess.run(["tshark", "-r", self.path("server.pcapng"), "-o", "tcp.check_checksum:TRUE", "-Y", wanted],
                               check=True, capture_output=True, text=True)
        return len(shown.stdout.splitlines())

    def check(self, checksums: bool) -> None:
        """One run."""
        self.offload(checksums)
        self.serve()
        sensors = self.capture()
        cases = [case for case in connections() if not is_known(case, checksums)]
        facts = self.forge(cases)
        logged = self.logged(cases)
        for point, process in zip(POINTS, sensors, strict=True):
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), OK, self.said(point))
        self.assertRegex(self.said("router"), r"\b0 dropped by the kernel, 0 dropped by the interface")
        self.assertNotIn("kernel_dropped", self.said("server"))
        self.assertEqual(self.open_checksums() == 0, checksums)
        found = self.rows()
        own = {case.client: ja4(bytes.fromhex(facts[case.number]["hello"])) for case in cases if not (case.kinds or case.urgent)}
        self.assertEqual(len(set(own.values())), len(CLIENTS), own)
        counts, faults, slow = Counter(), [], 0
        for case in cases:
            fact = facts[case.number]
            if fact["hello"]:
                self.assertEqual(ja4(bytes.fromhex(fact["hello"])), own[case.client])
            self.assertEqual(fact["forged"] > 0, bool(case.kinds), named(case))
            self.assertEqual(logged[case.number], (fact["port"], NEGOTIATED.get(case.client, BEST)), named(case))
            slow += fact["seconds"] > SLOW_S
            for name, rows in found.items() if fact["seconds"] <= SLOW_S else ():
                point = name.split()[0]
                fault = verdict(case, point, checksums, own[case.client], rows.get(fact["port"], []), counts)
                if fault:
                    faults.append(f"{name}, port {fact['port']}, {named(case)}: {fault}")
                    self.keep(name, fact["port"], checksums, case)
        self.assertLess(slow, len(cases) // 10, "the machine is too busy")
        won = sum(facts[case.number]["before"] > 0 for case in cases if case.races)
        print(f"\n    {len(cases)} connections, {sum(fact['forged'] for fact in facts.values())} forged frames, "
              f"{won} of {RACES} races won, {slow} too slow; {dict(sorted(counts.items()))} ", end="")
        self.assertFalse(faults, f"{len(faults)} faults\n" + "\n".join(faults))

    def keep(self, name: str, port: int, checksums: bool, case: Connection) -> None:
        """Keeps what a capture has of a connection, if that is wanted."""
        if not KEEP:
            return
        words = re.sub(r"\W+", "-", f"{name} {'wire' if checksums else 'open'} {named(case)}").strip("-")
        recording = ["tshark", "-r", self.path(f"{name.split()[0]}.pcapng"), "-Y"]
        shown = subprocess.run([*recording, f"tcp.port=={port}", "-T", "fields", "-e", "frame.number"], check=True,
                               capture_output=True, text=True).stdout.split()
        within = f"frame.number>={shown[0]} && frame.number<={shown[-1]}"
        subprocess.run([*recording, f"{within} && (tcp.port=={port} || ip.flags.mf==1 || ip.frag_offset>0)", "-F", "pcap", "-w",
                        Path(KEEP, f"forged-{words}.pcap")], check=True, capture_output=True)

    def test_checksums_as_on_a_wire(self) -> None:
        """What is dropped for its checksum or its flags leaves no doubt."""
        self.check(checksums=True)

    def test_checksums_left_to_a_card(self) -> None:
        """Checksums say nothing: the fingerprints are still right, or flagged."""
        self.check(checksums=False)


def connections() -> list[Connection]:
    """Each client without anything forged; each kind at each moment with each layout; many of a kind; kinds together; races."""
    numbers = itertools.count()
    clients = itertools.cycle(["python", "curl", "python long", "python", "openssl", "python", "curl 1.2", "python long",
                               "python", "openssl 1.2", "python"])
    cases = [Connection(next(numbers), client) for client in CLIENTS]
    cases += [Connection(next(numbers), client, urgent=True) for client in CLIENTS]

    def add(kinds: list[str], layout: str, moments: list[str], times: int = 1) -> None:
        cases.append(Connection(next(numbers), next(clients), kinds, [layout], moments, times))

    for kind, layout, moment in itertools.product(KINDS, LAYOUTS, MOMENTS):
        add([kind], layout, [moment])
    for layout in LAYOUTS:
        add(["SYN"], layout, ["syn"])
    for kind, layout in itertools.product(KINDS, ("request", "hello", "its cipher")):
        add([kind], layout, ["before"], times=20)
    # More than is kept of one connection.
    for kind, layout, moment in itertools.product(FLOODS, ("hello", "its cipher"), ("before", "after")):
        add([kind], layout, [moment], times=FLOOD)
    for layout, moments in itertools.product(LAYOUTS, [*([moment] for moment in MOMENTS), list(MOMENTS)]):
        add(list(KINDS), layout, moments)
        add([name for name, kind in KINDS.items() if kind.certain], layout, moments)
    # A router that says that a packet's time was over may end an attempt to connect.
    kinds = itertools.cycle(name for name in KINDS if "TTL" not in name)
    for kind, layout in itertools.islice(zip(kinds, itertools.cycle(LAYOUTS)), RACES):
        cases.append(Connection(next(numbers), "curl", [kind], [layout], races=True))
    return cases


def named(case: Connection) -> str:
    """A connection, for people."""
    kinds = case.kinds[0] if len(case.kinds) == 1 else f"{len(case.kinds)} kinds"
    moments = ", ".join(case.moments) or "race"
    if case.urgent:
        return f"{case.client}: an urgent byte"
    return f"{case.client}: {kinds}, {', '.join(case.layouts)}, {moments}" + (f", {case.times} times" if case.times > 1 else "")


def is_known(case: Connection, checksums: bool) -> bool:
    """Whether the sensor is known to lose the hello: what it trusts makes nonsense of a half that the server has acknowledged."""
    trusted = {"fragments, header's checksum", "fragments, header's checksum behind", "fragments that overlap", "other station",
               "other station behind"}
    if not checksums:
        trusted |= {name for name in KINDS if "checksum" in name or name.startswith("longer")}
    # Where the server's segments are not seen, the front of another hello behind another SYN is another connection.
    if "other SYN" in case.kinds and "front" in case.layouts and (case.races or {"before", "between"}.intersection(case.moments)):
        return True
    return bool(trusted.intersection(case.kinds) and {"rest", "halves"}.intersection(case.layouts) and "between" in case.moments)


def verdict(case: Connection, point: str, checksums: bool, own: str, rows: list[dict], counts: Counter) -> str:
    """What is wrong with the hellos of a connection; empty if nothing is."""
    kinds = [KINDS[name] for name in case.kinds if KINDS[name].seen_at(point)]
    is_clear = not case.urgent and all(kind.certain == "always" or kind.certain and checksums for kind in kinds)
    plain = [row["ja4"] for row in rows if not row["ambiguous"]]
    shown = [(row["ja4"], row["hello"], row["ambiguous"]) for row in rows]
    is_flagged = len(rows) > len(plain)
    counts[("clear" if is_clear else "in doubt") + (", flagged" if is_flagged else ", right")] += 1
    if not rows:
        return "no hello"
    if plain not in ([], [own]):
        return f"not {own} alone without a flag: {shown}"
    if is_clear and is_flagged:
        return f"a flag though nothing is in doubt, {own}: {shown}"
    return ""


def ja4(record: bytes) -> str:
    """The JA4 of a hello in one record, by the demo's oracle."""
    body = record[9:]
    at = 35 + body[34]
    length = int.from_bytes(body[at : at + 2], "big")
    fields = oracle.Fields(body[:2].hex(), numbers(body[at + 2 : at + 2 + length]))
    at += 2 + length
    at += 1 + body[at] + 2
    while at < len(body):
        kind, length = body[at : at + 2].hex(), int.from_bytes(body[at + 2 : at + 4], "big")
        content = body[at + 4 : at + 4 + length]
        fields.extensions.append(kind)
        if kind == oracle.SIGNATURE_ALGORITHMS:
            fields.signature_algorithms = numbers(content[2:])
        elif kind == oracle.SUPPORTED_VERSIONS:
            fields.supported_versions = numbers(content[1:])
        elif kind == oracle.ALPN:
            fields.alpn = [content[3 : 3 + content[2]]]
        at += 4 + length
    return oracle.ja4(fields)


def numbers(data: bytes) -> list[str]:
    """Two bytes each, in hex."""
    return [data[at : at + 2].hex() for at in range(0, len(data), 2)]
