"""Generated traffic into a live engine's sockets, through kills and starts."""

import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.traffic import FILES, HELLO, REQUEST, Event

# How long a row waits in a full queue before the feeder looks whether it is to end.
PATIENCE_S = 0.2

SOCKETS = {HELLO: "hellos.socket", REQUEST: "requests.socket"}


@dataclass(frozen=True, slots=True)
class Sent:
    """A row that the kernel took: when, in ns since the epoch, and what was in it."""

    stream: str
    id: str
    at: int
    row: dict


class Feeder(threading.Thread):
    """Sends events at their pace, their times moved to now; waits and tries again while nobody listens.

    `sent` has what was sent, in that order; `refused` counts how often the kernel's queue was full for long. After `end`
    nothing is sent any more.
    """

    def __init__(self, events: Iterable[Event], directory: Path, speed: float = 1) -> None:
        super().__init__(name="feeder", daemon=True)
        self.sent: list[Sent] = []
        self.refused = 0
        self._events, self._directory, self._speed = events, directory, speed
        self._sockets: dict[str, socket.socket] = {}
        self._ended = threading.Event()
        self._fault: Exception | None = None

    def __enter__(self) -> "Feeder":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stops sending; raises what has ended the feeder before."""
        self._ended.set()
        self.join()
        if self._fault:
            raise self._fault

    def ids(self, stream: str, since: int = 0) -> set[str]:
        """What was sent to a stream, from a time in ns on."""
        return {sent.id for sent in list(self.sent) if sent.stream == stream and sent.at >= since}

    def run(self) -> None:
        """Until the events or the test end."""
        begin = time.monotonic_ns()
        first = None
        try:
            for event in self._events:
                first = event.arrival if first is None else first
                early = begin + (event.arrival - first) / self._speed - time.monotonic_ns()
                if early > 0 and self._ended.wait(early / 1e9) or not self._send(event):
                    return
        except Exception as fault:
            self._fault = fault
        finally:
            for open_socket in self._sockets.values():
                open_socket.close()

    def _send(self, event: Event) -> bool:
        """Until the kernel takes it; false if the feeder is to end before."""
        while not self._ended.is_set():
            at = time.time_ns()
            row_time = at + event.time - event.arrival
            try:
                self._socket(event.stream).send(event.line(row_time))
            except TimeoutError:
                self.refused += 1
                continue
            except OSError:
                # Nobody listens, or somebody new does.
                if event.stream in self._sockets:
                    self._sockets.pop(event.stream).close()
                self._ended.wait(0.005)
                continue
            self.sent.append(Sent(event.stream, event.id, at, event.row(row_time)))
            return True
        return False

    def _socket(self, stream: str) -> socket.socket:
        if stream not in self._sockets:
            opened = connected(self._directory / SOCKETS[stream])
            opened.settimeout(PATIENCE_S)
            self._sockets[stream] = opened
        return self._sockets[stream]


class Writer(Feeder):
    """Appends to two files that are followed, whoever reads them; half a line at a time now and then."""

    def _send(self, event: Event) -> bool:
        at = time.time_ns()
        row_time = at + event.time - event.arrival
        line = event.line(row_time) + b"\n"
        cut = len(line) // 2 if len(self.sent) % 7 == 0 else len(line)
        with (self._directory / FILES[event.stream]).open("ab", buffering=0) as file:
            file.write(line[:cut])
            file.write(line[cut:])
        self.sent.append(Sent(event.stream, event.id, at, event.row(row_time)))
        return True


def connected(path: Path) -> socket.socket:
    """A datagram socket whose other end is at `path`; an OSError if nobody listens there."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        opened.connect(str(path))
    except OSError:
        opened.close()
        raise
    return opened
