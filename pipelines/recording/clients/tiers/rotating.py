"""Runs a command behind a CONNECT proxy of its own that changes its address, as a provider of proxies does.

Usage: rotating.py connection|SECONDS COMMAND…
The addresses are those of JA4REC_ADDRESSES. `connection`: another one for each connection; SECONDS: each for that
long. The command finds the proxy in JA4REC_PROXY. TLS is the client's from end to end.
"""

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time

ADDRESSES = os.environ["JA4REC_ADDRESSES"].split(",")
PORT = 8899
QUIET_S = 1.0


class Proxy:
    """The addresses in turn, and the tunnels that are open."""

    def __init__(self, every: str):
        self.every = None if every == "connection" else float(every)
        self.begin = time.monotonic()
        self.each = itertools.cycle(ADDRESSES)
        self.last: dict[asyncio.Task, list] = {}

    def address(self) -> str:
        """The address of the next connection."""
        if self.every is None:
            return next(self.each)
        return ADDRESSES[int((time.monotonic() - self.begin) / self.every) % len(ADDRESSES)]

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One CONNECT: opens the way out, then copies in both directions until either side closes."""
        me, used = asyncio.current_task(), None
        try:
            verb, target, *_ = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split(" ")
            if verb != "CONNECT" or not target.split(":")[0].endswith(".example.test"):
                # What browsers ask their makers.
                return
            host, port = target.rsplit(":", 1)
            used = self.address()
            out_reader, out_writer = await asyncio.open_connection(host, int(port), local_addr=(used, 0))
            self.last[me] = [used, time.monotonic()]
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = [
                asyncio.ensure_future(self.copy(me, *pair)) for pair in ((reader, out_writer), (out_reader, writer))
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                out_writer.close()
        except asyncio.CancelledError:
            # Its address's time is over. Not passed on: nobody waits for the task.
            return
        except (OSError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
            print(f"rotating: {used}: {error!r}", file=sys.stderr)
        finally:
            self.last.pop(me, None)
            writer.close()

    async def copy(self, tunnel: asyncio.Task, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction of a tunnel."""
        try:
            while data := await reader.read(65536):
                self.last[tunnel][1] = time.monotonic()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    async def leave(self) -> None:
        """Ends the quiet tunnels of an address whose time is over."""
        while True:
            await asyncio.sleep(0.3)
            now = self.address() if self.every else None
            for tunnel, (used, heard) in list(self.last.items()):
                if now and used != now and time.monotonic() - heard > QUIET_S:
                    tunnel.cancel()


def serve(every: str, ready: threading.Event) -> None:
    """The proxy's loop."""

    async def run() -> None:
        proxy = Proxy(every)
        server = await asyncio.start_server(proxy.tunnel, "127.0.0.1", PORT)
        ready.set()
        await asyncio.gather(server.serve_forever(), proxy.leave())

    asyncio.run(run())


if __name__ == "__main__":
    begun = threading.Event()
    threading.Thread(target=serve, args=(sys.argv[1], begun), daemon=True).start()
    if not begun.wait(10):
        sys.exit("rotating: the proxy does not listen")
    told = {**os.environ, "JA4REC_PROXY": f"http://127.0.0.1:{PORT}"}
    os._exit(subprocess.run(sys.argv[2:], env=told, check=False).returncode)
