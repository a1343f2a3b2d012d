"""The collection of attacks: `make attack`, or `python3 -m tests.attack.main [--quick] [--only sql,http] [--statements 10000]`.

It starts engines of its own, attacks them, and prints a table of what held. The exit code is 1 if something got through.
"""

import argparse
import sys

from tests.attack import inputs, queries, setups, web
from tests.attack.report import Report

AREAS = ("sql", "http", "lines", "captures", "pipelines", "outputs", "text", "grammar")


def main(arguments: list[str] | None = None, out: object = sys.stdout) -> int:
    """All that is asked for; the exit code."""
    parser = argparse.ArgumentParser(description="Attacks engines, and says what held.")
    parser.add_argument("--quick", action="store_true", help="the small part, as in `make test`")
    parser.add_argument("--only", default=",".join(AREAS), help=f"areas out of {','.join(AREAS)}")
    parser.add_argument("--statements", type=int, help="how many statements are generated [default: 2000; --quick: 120]")
    parser.add_argument("--seed", type=int, default=1, help="of generated statements and mutated captures")
    parser.add_argument("--seconds", type=float, help="the time after which nothing new is begun [default: 570; --quick: 60]")
    options = parser.parse_args(arguments)
    quick, areas = options.quick, options.only.split(",")
    count = options.statements if options.statements is not None else (120 if quick else 2000)
    report = Report(options.seconds or (60 if quick else 570), out)
    # What takes longest comes last, so that the time is over there if anywhere.
    for area, attacks in (
        ("text", lambda: setups.text(report)),
        ("outputs", lambda: setups.outputs(report, quick)),
        ("pipelines", lambda: setups.pipelines(report, quick)),
        ("lines", lambda: inputs.lines(report, quick)),
        ("captures", lambda: inputs.captures(report, quick, options.seed)),
        ("http", lambda: web.run(report, quick)),
        ("sql", lambda: (queries.hostile(report, quick), queries.crowds(report, quick))),
        ("grammar", lambda: queries.generated(report, options.seed, count)),
    ):
        if area in areas and not report.is_over():
            attacks()
    return report.summary()


if __name__ == "__main__":
    sys.exit(main())
