"""Networks that several clients of a recording share: a house behind address translation, an office behind a proxy.

The house's router rewrites source addresses in the kernel. The office's proxy is Squid: it ends the TLS of its people
with certificates that it makes, opens connections of its own, and adds X-Forwarded-For and Via.
"""

import subprocess
import time
from pathlib import Path

import net

PROXY_PORT = 3128

# Squid's helper that makes certificates.
CERTIFICATES = "/usr/lib/squid/security_file_certgen"
SQUID_USER = "proxy"
SQUID_NAME = "ja4rec"

SQUID = """http_port {gateway}:{port} ssl-bump tls-cert={work}/bump.pem generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program {certificates} -s {work}/squid-certificates -M 4MB
ssl_bump bump all
http_access allow all
tls_outgoing_options cafile={work}/ca.pem
tcp_outgoing_address {outer}
forwarded_for on
via on
cache deny all
pid_filename {work}/squid/squid.pid
coredump_dir {work}/squid
access_log none
cache_log {work}/squid/squid.log
visible_hostname proxy.office.test
shutdown_lifetime 1 seconds
"""


class Place:
    """A router with one address outside and a private network inside."""

    def __init__(self, number: int, name: str, outer: str):
        self.name, self.outer = name, outer
        self.router = f"{net.PREFIX}r{number}"
        self.gateway = f"10.9.{number}.1"
        self.inside = 0
        net.attach(self.router, f"r{number}", outer)
        ip = ("ip", "-n", self.router)
        net.run(
            *ip,
            "link",
            "add",
            net.BRIDGE,
            "type",
            "bridge",
            "stp_state",
            "0",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        )
        net.run(*ip, "link", "set", net.BRIDGE, "up")
        net.run(*ip, "addr", "add", f"{self.gateway}/24", "dev", net.BRIDGE)

    def translate(self) -> None:
        """Forwards, with the outer address as the source; the hop limit falls by one, as behind any router."""
        enter = net.inside(self.router)
        net.run(*enter, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        for rule in (
            "add table ip nat",
            "add chain ip nat out { type nat hook postrouting priority 100 ; }",
            f"add rule ip nat out oifname eth0 snat to {self.outer}",
        ):
            net.run(*enter, "nft", rule)

    def join(self, name: str) -> str:
        """Puts a namespace inside; returns its private address."""
        self.inside += 1
        address = self.gateway.rsplit(".", 1)[0] + f".{self.inside + 1}"
        net.behind(name, self.router, f"i{self.inside}", address, self.gateway)
        return address

    def capture(self, work: Path) -> subprocess.Popen:
        """Captures the connections' first packets inside, by which clients are told apart afterwards."""
        command = net.inside(
            self.router,
            "tcpdump",
            "-i",
            net.BRIDGE,
            "-n",
            "-s",
            "96",
            "-U",
            "-Z",
            "root",
            "-w",
            str(work / f"{self.name}.pcap"),
            "tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn",
        )
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def proxy(self, work: Path) -> subprocess.Popen:
        """Starts Squid and waits until it listens."""
        (work / "bump.pem").write_text((work / "ca.pem").read_text() + (work / "ca.key").read_text())
        configuration = work / "squid.conf"
        configuration.write_text(
            SQUID.format(gateway=self.gateway, port=PROXY_PORT, work=work, outer=self.outer, certificates=CERTIFICATES)
        )
        net.run(CERTIFICATES, "-c", "-s", str(work / "squid-certificates"), "-M", "4MB")
        # Squid gives root away: to the user of its package, whose these then have to be.
        net.run("chown", "-R", SQUID_USER, str(work / "squid-certificates"))
        (work / "squid").mkdir()
        net.run("chown", SQUID_USER, str(work / "squid"))
        # Shared memory of a Squid that was killed.
        for left in Path("/dev/shm").glob(f"{SQUID_NAME}-*"):
            left.unlink()
        with (work / "squid.out").open("w") as out:
            squid = subprocess.Popen(
                net.inside(self.router, "squid", "-N", "-n", SQUID_NAME, "-f", str(configuration)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        probe = net.inside(self.router, "ss", "-Hltn", f"sport = :{PROXY_PORT}")
        for _ in range(100):
            if subprocess.run(probe, capture_output=True, check=False).stdout:
                return squid
            if squid.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"squid does not listen: {(work / 'squid.out').read_text()[-1000:]}")

    def url(self) -> str:
        """The proxy's address for a client inside."""
        return f"http://{self.gateway}:{PROXY_PORT}"
