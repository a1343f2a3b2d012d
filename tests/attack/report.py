"""What was tried, what held."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.attack.victim import MIB, Broken, Seen, Victim


@dataclass
class Line:
    """One attack."""

    area: str
    name: str
    held: bool
    said: str
    seconds: float
    seen: Seen = field(default_factory=Seen)

    def __str__(self) -> str:
        seen = self.seen
        memory = f"{seen.run / MIB:6.0f} {seen.children / MIB:6.0f}" if seen.run else f"{'':13}"
        others = f"{seen.status_s:5.2f} {seen.sql_s:5.2f}" if seen.asked else f"{'':11}"
        mark = "held  " if self.held else "BROKEN"
        return f"{mark} {self.area:<9} {self.name[:44]:<44} {self.seconds:6.1f} {memory} {others}  {self.said[:160]}"


HEAD = f"{'':6} {'area':<9} {'attack':<44} {'s':>6} {'run':>6} {'query':>6} {'status':>5} {'sql':>5}  what was answered (memory in MiB; others' longest waits in s)"


class Report:
    """Collects lines, and prints each as it comes."""

    def __init__(self, seconds: float, out: object = sys.stdout) -> None:
        self.end = time.monotonic() + seconds
        self.lines: list[Line] = []
        self.out = out
        print(HEAD, file=out, flush=True)

    def is_over(self) -> bool:
        """Whether there is no time for more."""
        return time.monotonic() > self.end

    def add(self, line: Line) -> None:
        """A line."""
        self.lines.append(line)
        print(str(line).encode("unicode_escape").decode() if not str(line).isprintable() else line, file=self.out, flush=True)

    def attack(self, area: str, name: str, action: Callable[[], str], victim: Victim | None = None) -> bool:
        """Does it, then looks at the victim; what `action` returns is what was answered."""
        if self.is_over():
            return True
        if victim:
            victim.look()
        begin, seen = time.monotonic(), Seen()
        try:
            said = action()
            if victim:
                seen = victim.look()
                victim.check(seen)
            held = True
        except (Broken, AssertionError, OSError) as fault:
            held, said = False, f"{type(fault).__name__ if isinstance(fault, OSError) else ''}{fault}"
            if victim:
                rest = victim.look()
                seen.run, seen.children = max(seen.run, rest.run), max(seen.children, rest.children)
        self.add(Line(area, name, held, said.replace("\n", " "), time.monotonic() - begin, seen))
        return held

    def done(self, area: str, victim: Victim) -> None:
        """The victim's rows are complete."""
        def ended() -> str:
            victim.end()
            return f"{victim.sent} rows, each once"
        begin = time.monotonic()
        try:
            held, said = True, ended()
        except Broken as fault:
            held, said = False, str(fault)
        self.add(Line(area, "the run's rows are complete", held, said.replace("\n", " "), time.monotonic() - begin))

    def summary(self) -> int:
        """Says how many held; the exit code."""
        broken = [line for line in self.lines if not line.held]
        for line in broken:
            print(f"BROKEN {line.area}: {line.name}: {line.said[:3000]}", file=self.out)
        over = ", and time was over before the rest" if self.is_over() else ""
        print(f"{len(self.lines)} attacks, {len(self.lines) - len(broken)} held, {len(broken)} got through{over}", file=self.out)
        return 1 if broken else 0
