"""The network of the recording: one bridge in the server's namespace, one namespace per address.

Nothing is connected to the host: the namespaces have routes to each other and to nothing else.
"""

import ipaddress
import os
import shutil
import signal
import subprocess
from pathlib import Path

from roster import HOSTS, SERVER_V4, SERVER_V6

PREFIX = "ja4rec-"
SERVER = PREFIX + "server"
BRIDGE = "br0"
NETNS_ETC = Path("/etc/netns")

# Without these offloads packets keep the size that a wire would carry, and valid checksums.
OFFLOADS = ("gro", "gso", "tso", "tx", "rx")


def run(*command: str) -> str:
    """Runs a command; its error text becomes the exception's."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def create(addresses: list[str]) -> dict[str, str]:
    """Builds all namespaces; returns the client's namespace for each address."""
    serve()
    namespaces = {}
    for number, address in enumerate(addresses, 1):
        namespaces[address] = f"{PREFIX}{number}"
        attach(namespaces[address], f"c{number}", address)
    return namespaces


def serve() -> None:
    """The server's namespace, with the bridge that all clients' are on."""
    namespace(SERVER, {SERVER_V4: HOSTS, SERVER_V6: HOSTS})
    ip = ("ip", "-n", SERVER)
    run(*ip, "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
    run(*ip, "link", "set", BRIDGE, "up")
    run(*ip, "addr", "add", f"{SERVER_V4}/32", "dev", BRIDGE)
    run(*ip, "addr", "add", f"{SERVER_V6}/128", "dev", BRIDGE, "nodad")
    offload(SERVER, BRIDGE)


def attach(name: str, port: str, *addresses: str) -> None:
    """One client namespace with addresses of one family on eth0, the other end of it on the bridge."""
    v6 = ipaddress.ip_address(addresses[0]).version == 6
    server = SERVER_V6 if v6 else SERVER_V4
    bits = "128" if v6 else "32"
    namespace(name, {server: HOSTS})
    run("ip", "-n", SERVER, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "-n", SERVER, "link", "set", port, "master", BRIDGE, "up")
    run("ip", "-n", name, "link", "set", "eth0", "up")
    for address in addresses:
        run("ip", "-n", name, "addr", "add", f"{address}/{bits}", "dev", "eth0", *(["nodad"] if v6 else []))
    run("ip", "-n", name, "route", "add", f"{server}/{bits}", "dev", "eth0")
    for address in addresses:
        run("ip", "-n", SERVER, "route", "add", f"{address}/{bits}", "dev", BRIDGE)
    offload(SERVER, port)
    offload(name, "eth0")


def behind(name: str, router: str, port: str, address: str, gateway: str) -> None:
    """One client namespace with a private address on the inner bridge of a router's namespace."""
    namespace(name, {SERVER_V4: HOSTS})
    run("ip", "-n", router, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "-n", router, "link", "set", port, "master", BRIDGE, "up")
    run("ip", "-n", name, "link", "set", "eth0", "up")
    run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    run("ip", "-n", name, "route", "add", "default", "via", gateway)
    offload(router, port)
    offload(name, "eth0")


def namespace(name: str, hosts: dict[str, tuple[str, ...]]) -> None:
    """An empty namespace with its own hosts file and no name server."""
    etc = NETNS_ETC / name
    etc.mkdir(parents=True, exist_ok=True)
    lines = ["127.0.0.1 localhost", "::1 localhost", *(f"{address} {' '.join(names)}" for address, names in hosts.items())]
    (etc / "hosts").write_text("\n".join(lines) + "\n")
    (etc / "resolv.conf").write_text("# no name server: names are in hosts\n")
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def offload(name: str, interface: str) -> None:
    """Switches offloads off, as far as the interface has them."""
    settings = [word for feature in OFFLOADS for word in (feature, "off")]
    run("ip", "netns", "exec", name, "ethtool", "-K", interface, *settings)


def inside(name: str, *command: str) -> list[str]:
    """The command line that runs `command` in a namespace."""
    return ["ip", "netns", "exec", name, *command]


def destroy() -> None:
    """Removes every namespace of a recording, also one left by a killed run, and what runs inside."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name in (line.split()[0] for line in listed.splitlines() if line.startswith(PREFIX)):
        for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        run("ip", "netns", "del", name)
    if NETNS_ETC.is_dir():
        for etc in NETNS_ETC.glob(PREFIX + "*"):
            shutil.rmtree(etc)
