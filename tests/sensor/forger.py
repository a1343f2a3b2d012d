"""Real TLS clients whose connections are forged beside. Runs in the client's namespace.

Usage: forger.py PLAN, a JSON object:
    cases    what is to be done, see `Case`
    devices  the client's device, and that of the router behind which is the server
    behind   the router's namespace
    router   its address on the client's side
    server   the server's address
    host     the name of the server, and with `ca` what its certificate is held against

Most clients do not speak to the server themselves but to a relay here, which does it for them: it reads their hello, opens the
connection, and knows so where it is and what goes before and after what. The others race against what is forged.

Prints a JSON object for each case: its number, the client's port, the hello in hex if it was relayed, how many frames were
forged, how many of them before all of the hello had been sent, the seconds from the first of them to the hello, and what
went wrong.
"""

import ctypes
import itertools
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.sensor import forging
from tests.sensor.forging import PORT, STATION, Flow, Wire

EVERY_PROTOCOL = 3
NEW_NETWORK = 0x40000000
BUFFER = 64 << 20
LIMIT_S = 20
# At a time.
RACING = 4
# Of the server's clients, below those that the kernel chooses; a case has the port of its number.
FIRST_PORT = 20000

MOMENTS = ("before", "between", "after", "late")


@dataclass(frozen=True)
class Case:
    """A connection: its client, and what is forged beside it, when."""

    number: int
    client: str
    # Of forging.KINDS and forging.LAYOUTS.
    kinds: list[str] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    # Of MOMENTS: before the hello, between its halves, at once after it, after the server's answer. "syn": with the SYN.
    moments: list[str] = field(default_factory=list)
    # How often.
    times: int = 1
    # The client opens the connection itself.
    races: bool = False
    # Between the halves of the hello there is an urgent byte, which the server takes out of the stream.
    urgent: bool = False


class Forger:
    """A run."""

    def __init__(self, plan: dict) -> None:
        self.plan = plan
        near, behind = plan["devices"]
        self.wires = {False: Wire(), True: Wire()}
        self.sockets = {False: watch(near), True: inside(plan["behind"], lambda: watch(behind))}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(LIMIT_S)

    def run(self) -> Iterator[dict]:
        """All cases; what is said of each."""
        cases = [Case(**case) for case in self.plan["cases"]]
        for case in cases:
            if not case.races:
                result = self.relayed(case)
                yield result
                if result["error"]:
                    # What is left of it would disturb the next one.
                    return
        yield from self.race([case for case in cases if case.races])

    def client(self, case: Case, address: str, port: int, own_port: int = 0) -> Callable[[], None]:
        """Starts a client; what is returned waits for its end, and raises what went wrong."""
        host, ca = self.plan["host"], self.plan["ca"]
        path = f"/?{case.number}"
        command = [word.format(host=host, ca=ca, at=f"{address}:{port}", url=f"https://{host}{path}")
                   for word in COMMANDS.get(case.client, [])]
        if not command:
            failures = []
            thread = threading.Thread(target=python, args=(case, host, ca, address, port, path, failures), daemon=True)
            thread.start()

            def joined() -> None:
                thread.join(LIMIT_S)
                if failures or thread.is_alive():
                    raise RuntimeError(f"{failures}")
            return joined
        if own_port:
            command += ["--local-port", str(own_port)]
        request, write = os.pipe()
        os.write(write, f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        os.close(write)
        process = subprocess.Popen(command, stdin=request, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.close(request)

        def ended() -> None:
            try:
                _, said = process.communicate(timeout=LIMIT_S)
            finally:
                process.kill()
            if process.returncode:
                raise RuntimeError(f"{process.returncode} {said}")
        return ended

    def relayed(self, case: Case) -> dict:
        """A client through the relay."""
        flow = Flow(FIRST_PORT + case.number)
        result = {"number": case.number, "port": flow.port, "hello": "", "before": 0, "seconds": 0.0, "error": ""}
        end = self.client(case, *self.listener.getsockname())
        inner, _ = self.listener.accept()
        try:
            with inner, socket.socket() as outer:
                self.relay(case, flow, inner, outer, result)
            end()
        except (OSError, EOFError, RuntimeError, subprocess.TimeoutExpired) as error:
            result["error"] = repr(error)
        return result | {"forged": flow.forged}

    def relay(self, case: Case, flow: Flow, inner: socket.socket, outer: socket.socket, result: dict) -> None:
        """What the client sends to the server and back, and what is forged beside it."""
        inner.settimeout(LIMIT_S)
        hello = first_record(inner)
        result["hello"] = hello.hex()
        cut = len(hello) // 2
        outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        outer.bind(("", flow.port))

        def forge(moment: str) -> None:
            if moment in case.moments:
                self.forge(case, flow, hello, cut)

        def sent(length: int) -> bool:
            return forging.ahead(flow.first + length, flow.next) >= 0

        outer.setblocking(False)
        with self.astray() if "syn" in case.moments else unchanged() as way:
            outer.connect_ex((self.plan["server"], PORT))
            self.follow(flow, lambda: flow.first is not None)
            way()
        forge("syn")
        self.follow(flow, lambda: flow.acknowledges)
        outer.settimeout(LIMIT_S)
        forge("before")
        if "between" in case.moments:
            outer.sendall(hello[:cut])
            self.follow(flow, lambda: sent(cut))
            forge("between")
        result["before"] = flow.forged
        if case.urgent:
            outer.sendall(hello[:cut])
            outer.send(b"!", socket.MSG_OOB)
        outer.sendall(hello[cut:] if "between" in case.moments or case.urgent else hello)
        self.follow(flow, lambda: sent(len(hello)))
        result["seconds"] = flow.age()
        forge("after")
        answer = outer.recv(1 << 16)
        self.follow(flow, lambda: flow.server_next != flow.server_first)
        forge("late")
        inner.sendall(answer)
        exchange(inner, outer)

    def forge(self, case: Case, flow: Flow, hello: bytes, cut: int) -> None:
        """Sends all that is forged at one moment."""
        for _, kind, layout in itertools.product(range(case.times), case.kinds, case.layouts):
            for behind, frame in forging.frames(flow, self.wires, kind, layout, hello, cut):
                self.sockets[behind].send(frame)

    def follow(self, flow: Flow, until: Callable[[], bool]) -> None:
        """Reads what is on the wires until the connection has come to a point."""
        end = time.monotonic() + LIMIT_S
        while not until():
            if not self.look(lambda frame: flow.observe(frame)) and time.monotonic() > end:
                raise TimeoutError(f"the connection from port {flow.port}: {vars(flow)}")

    def look(self, observe: Callable[[bytes], object]) -> bool:
        """Reads a frame from each wire that has one."""
        ready, _, _ = select.select(self.sockets.values(), (), (), 0.1)
        for behind, wire in self.sockets.items():
            if wire in ready:
                frame = wire.recv(1 << 16)
                found = forging.parsed(frame)
                # Not from a SYN that went astray.
                if found and found.target == PORT and frame[:6] != STATION and not found.flags & forging.SYN:
                    self.wires[behind].ethernet, self.wires[behind].ttl = frame[:14], frame[22]
                if not behind:
                    observe(frame)
        return bool(ready)

    @contextmanager
    def astray(self) -> Iterator[Callable[[], None]]:
        """What the client sends passes the captures and reaches nobody, until what is returned is called."""
        router, device = self.plan["router"], self.plan["devices"][0]

        def lead(station: bytes) -> None:
            entry = (router, "lladdr", station.hex(":"), "dev", device, "nud", "permanent")
            subprocess.run(["ip", "neighbour", "replace", *entry], check=True, capture_output=True)
        station = self.wires[False].ethernet[:6]
        lead(STATION)
        try:
            yield lambda: lead(station)
        finally:
            lead(station)

    def race(self, cases: list[Case]) -> list[dict]:
        """Clients that open their connections themselves, some at a time, while forged segments are sent as soon as the
        connection is there, and again when the hello is.
        """
        racing = {FIRST_PORT + case.number: (case, Flow(FIRST_PORT + case.number), []) for case in cases}
        over = threading.Event()

        def observe(frame: bytes) -> None:
            found = forging.parsed(frame)
            if not found or found.source not in racing and found.target not in racing:
                return
            case, flow, before = racing[found.source if found.source in racing else found.target]
            flow.observe(frame)
            if flow.acknowledges and not flow.forged:
                # Of the real hello nothing is known yet.
                hello = forging.hello(517)
                self.forge(case, flow, hello, len(hello) // 2)
            if found.target == PORT and found.data and not before:
                before += [flow.forged, flow.age()]
                self.forge(case, flow, found.data, len(found.data) // 2)

        def watch() -> None:
            while not over.is_set():
                self.look(observe)

        watcher = threading.Thread(target=watch)
        watcher.start()

        def connect(case: Case) -> str:
            try:
                self.client(case, self.plan["server"], PORT, FIRST_PORT + case.number)()
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                return repr(error)
            return ""

        try:
            with ThreadPoolExecutor(RACING) as pool:
                errors = list(pool.map(connect, cases))
            # The clients have their answers; the watcher may not have looked at all that was sent.
            deadline = time.monotonic() + 10
            seen = [before for _, _, before in racing.values()]
            while time.monotonic() < deadline and not all(map(any, zip(errors, seen, strict=True))):
                time.sleep(0.01)
        finally:
            over.set()
            watcher.join()
        return [{"number": case.number, "port": port, "hello": "", "forged": flow.forged, "before": before[0],
                 "seconds": before[1], "error": error}
                for (port, (case, flow, before)), error in zip(racing.items(), errors, strict=True)]


CURL = ["curl", "--silent", "--show-error", "--fail", "--cacert", "{ca}", "--connect-to", "::{at}", "{url}"]
OPENSSL = ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", "{ca}", "-servername", "{host}", "-connect",
           "{at}"]
COMMANDS = {
    "curl": CURL,
    "curl 1.2": [*CURL, "--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-SHA384"],
    "openssl": [*OPENSSL, "-ciphersuites", "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"],
    "openssl 1.2": [*OPENSSL, "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
}
# Those of this process; the hello of the second takes two segments.
PYTHON = {"python": ["http/1.1"], "python long": [f"{number:0100}" for number in range(15)] + ["http/1.1"]}
CLIENTS = [*COMMANDS, *PYTHON]


def python(case: Case, host: str, ca: str, address: str, port: int, path: str, failures: list) -> None:
    """A client of this process; what goes wrong is added to `failures`."""
    try:
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(PYTHON[case.client])
        with (socket.create_connection((address, port), LIMIT_S) as plain,
              context.wrap_socket(plain, server_hostname=host) as secured):
            secured.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            if not secured.recv(1 << 16).startswith(b"HTTP/1."):
                failures.append("no answer")
    except OSError as error:
        failures.append(error)


def watch(device: str) -> socket.socket:
    """A socket on a device, for frames in both directions."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    wire.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), BUFFER)
    wire.bind((device, EVERY_PROTOCOL))
    return wire


def inside(namespace: str, do: Callable[[], socket.socket]) -> socket.socket:
    """Does something in another network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own, Path("/run/netns", namespace).open() as other:
        for entered in (other, own):
            if libc.setns(entered.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), f"setns {namespace}")
            if entered is other:
                result = do()
    return result


@contextmanager
def unchanged() -> Iterator[Callable[[], None]]:
    """In place of `Forger.astray`."""
    yield lambda: None


def first_record(client: socket.socket) -> bytes:
    """The first TLS record of a client, with its header."""
    record = b""
    while len(record) < 5 or len(record) < 5 + int.from_bytes(record[3:5], "big"):
        data = client.recv(1 << 16)
        if not data:
            raise EOFError(f"the client has ended after {record}")
        record += data
    return record


def exchange(inner: socket.socket, outer: socket.socket) -> None:
    """Hands on what comes until both sides have ended."""
    other = {inner: outer, outer: inner}
    while other:
        ready, _, _ = select.select(other, (), (), LIMIT_S)
        if not ready:
            raise TimeoutError("neither side has ended")
        for one in ready:
            try:
                data = one.recv(1 << 16)
                (inner if one is outer else outer).sendall(data)
            except OSError:
                # A client that has its answer may close with a reset.
                data = b""
            if not data:
                del other[one]
                try:
                    (inner if one is outer else outer).shutdown(socket.SHUT_WR)
                except OSError:
                    pass


def main() -> None:
    """Runs a plan."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    for result in Forger(plan).run():
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    # What is inherited may change what clients do.
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith(("SSL_", "OPENSSL_"))]:
        del os.environ[name]
    main()
