"""Attacks by SQL: hostile statements, several clients at a time, and generated statements."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.attack.grammar import Grammar
from tests.attack.report import Report
from tests.attack.statements import CROSS, HOSTILE, QUICK
from tests.attack.victim import PRELOADED, Broken, Victim

AREA = "sql"

# A statement is answered, or refused, or ended: 500 would be a fault of ours, 0 no answer at all.
ANSWERED = {200, 400, 403, 408, 413, 422, 429, 503, 504}

# The longest that an answer may take: the time of a query, and that of its waiting.
LIMIT_S = 30

# Attackers at a time; groups of so many statements are judged together, and one by one where a group has got through.
TOGETHER = 4


def answered(victim: Victim, name: str, text: str) -> str:
    """Asks; raises if there is no answer in time."""
    begin = time.monotonic()
    status, body = victim.sql(text, limit_s=LIMIT_S + 10)
    took = time.monotonic() - begin
    if status not in ANSWERED:
        raise Broken(f"{status} {body[:160]!r}: {name}")
    if took > LIMIT_S:
        raise Broken(f"{status} after {took:.0f} s: {name}")
    return f"{status} in {took:.1f} s"


def together(victim: Victim, statements: list[tuple[str, str]]) -> str:
    """Several, by as many clients."""
    with ThreadPoolExecutor(TOGETHER) as pool:
        said = list(pool.map(lambda one: answered(victim, *one), statements))
    return ", ".join(f"{name}: {what}" for (name, _), what in zip(statements, said, strict=True)) if len(said) > 1 else said[0]


def hostile(report: Report, quick: bool) -> None:
    """Statements that are known to hurt."""
    wanted = [one for one in HOSTILE if not quick or one[0] in QUICK]
    groups = [wanted[at : at + TOGETHER] for at in range(0, len(wanted), TOGETHER)]
    with Engines(report, preloaded=3000 if quick else PRELOADED) as engines:
        for group in groups:
            names = " · ".join(name for name, _ in group)
            if report.attack(AREA, names, lambda group=group: together(engines.victim, group), engines.victim):
                continue
            # Which of them was it?
            for one in group:
                engines.renew()
                report.attack(AREA, f"alone: {one[0]}", lambda one=one: together(engines.victim, [one]), engines.victim)
            engines.renew()
        assert not Path("/tmp/ja4-attack").exists(), "COPY wrote a file"


def crowds(report: Report, quick: bool) -> None:
    """Many clients with heavy statements: others are answered."""
    heavy = dict(HOSTILE)
    cases = [("eight clients with cross joins", CROSS, 8)]
    if not quick:
        cases += [
            ("sixteen clients with windows", heavy["window over a cross join"], 16),
            ("four clients with plans that take long", heavy["three thousand columns in CTEs"], 4),
            ("eight clients with patterns", heavy["a pattern of each row"], 8),
            ("forty clients with large answers", "select * from requests limit 100000", 40),
        ]
    with Engines(report, preloaded=3000 if quick else PRELOADED) as engines:
        for name, text, count in cases:
            def crowd(text: str = text, count: int = count, name: str = name) -> str:
                with ThreadPoolExecutor(count) as pool:
                    said = list(pool.map(lambda _: answered(engines.victim, name, text), range(count)))
                return ", ".join(sorted(said))
            if not report.attack(AREA, name, crowd, engines.victim):
                engines.renew()


def generated(report: Report, seed: int, count: int) -> None:
    """Statements of a grammar: each is answered or refused in time."""
    statuses: dict[str, int] = {}
    slowest = [0.0, ""]

    def some(victim: Victim, texts: list[str]) -> str:
        def one(text: str) -> None:
            begin = time.monotonic()
            said = answered(victim, text, text)
            statuses[said[:3]] = statuses.get(said[:3], 0) + 1
            if time.monotonic() - begin > slowest[0]:
                slowest[:] = [time.monotonic() - begin, text[:120]]
        with ThreadPoolExecutor(TOGETHER) as pool:
            list(pool.map(one, texts))
        return f"{dict(sorted(statuses.items()))}, the slowest took {slowest[0]:.1f} s"

    texts = list(Grammar(seed).statements(count))
    step = max(100, count // 20)
    # Few rows: what is asked is whether statements are answered, not how fast, and 10,000 of them are to be asked.
    with Engines(report, "grammar", preloaded=500) as engines:
        for at in range(0, count, step):
            part = texts[at : at + step]
            name = f"generated {at + 1} to {at + len(part)}, seed {seed}"
            if not report.attack("grammar", name, lambda part=part: some(engines.victim, part), engines.victim):
                engines.renew()


class Engines:
    """A victim, and another one where it did not hold. At the end the rows of the last one are complete."""

    def __init__(self, report: Report, area: str = AREA, **options: object) -> None:
        self.report, self.area, self.options = report, area, options

    def __enter__(self) -> "Engines":
        self.victim = Victim(**self.options).__enter__()
        return self

    def renew(self) -> None:
        """A fresh one."""
        self.victim.__exit__()
        self.victim = Victim(**self.options).__enter__()

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.report.done(self.area, self.victim)
        finally:
            self.victim.__exit__()

