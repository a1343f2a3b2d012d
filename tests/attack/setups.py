"""Attacks by whoever writes pipelines and files beside them, and by what stands where outputs go; and text at a terminal."""

import os
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests import terminal
from tests.attack.queries import Engines
from tests.attack.report import Report
from tests.attack.victim import MIB, PIPELINE, Broken, Victim, cli
from tests.cli.test_text import capture
from tests.support import get, wait_for

# The most memory that a pipeline may take to be checked, or to run over a few rows.
MOST = 1500 * MIB

HEAD = "name: x\ndata_dir: d\nnodes:\n  - { id: r, kind: source.file, path: log, format: reqin_log }\n"
TAIL = "  - { id: o, kind: sink.jsonl, from: f, path: o.jsonl }\nserve: { listen: 127.0.0.1:0, tables: { f: f } }\n"
ROW = '{"timestamp":1795446000000000000,"src_ip":"203.0.113.9","host":"a.example","path":"/index","status_code":200}\n'


def _filter(where: str) -> str:
    return f"{HEAD}  - id: f\n    kind: filter\n    from: r\n    where: >-\n      {where}\n{TAIL}"


def _derive(value: str) -> str:
    return f"{HEAD}  - id: f\n    kind: derive\n    from: r\n    columns:\n      - name: x\n        expr: >-\n          {value}\n{TAIL}"


def _many(kind: str, count: int) -> str:
    nodes = "".join(f"  - {{ id: n{n}, kind: {kind}, from: {'r' if n == 0 else f'n{n - 1}'}, where: 'true' }}\n" for n in range(count))
    return f"{HEAD}{nodes}  - {{ id: f, kind: filter, from: n{count - 1}, where: 'true' }}\n{TAIL}"


# Name and pipeline, which are refused or run.
PIPELINES: list[tuple[str, str]] = [
    ("a filter of 2,000 ANDs", _filter(" and ".join(f"status_code <> {n}" for n in range(2000)))),
    ("a filter of 20,000 ANDs", _filter(" and ".join(f"status_code <> {n}" for n in range(20_000)))),
    ("a filter of 2,000 ORs", _filter(" or ".join(f"path = '{n}'" for n in range(2000)))),
    ("a sum of 5,000", _filter("+".join(["status_code"] * 5000) + " > -1")),
    ("a concatenation of 5,000", _derive("||".join(["path"] * 5000))),
    ("parentheses, 20,000 deep", _filter("(" * 20_000 + "true" + ")" * 20_000)),
    ("NOT, 20,000 times", _filter("not " * 20_000 + "true")),
    ("minus, 20,000 times", _filter("- " * 20_000 + "1 < 1")),
    ("CASE, 2,000 deep", _derive("case when true then " * 2000 + "1" + " end" * 2000)),
    ("functions, 3,000 deep", _derive("abs(" * 3000 + "status_code" + ")" * 3000)),
    ("casts, 3,000 deep", _derive("cast(" * 3000 + "status_code" + " as bigint)" * 3000)),
    ("repeat of 10^8", _derive("repeat(path, 100000000)")),
    ("repeat of a row's number", _derive("repeat(path, status_code * 1000000)")),
    ("repeat of repeats", _derive("repeat(repeat(repeat(path, 1000), 1000), 1000)")),
    ("lpad of 10^9", _derive("lpad(path, 1000000000, 'ab')")),
    ("rpad of a row's number", _derive("rpad(path, status_code * 5000000)")),
    ("space", _derive("space(2000000000)")),
    ("an array of 10^9", _derive("array_length(array_repeat(path, 1000000000))")),
    ("a range of 10^9", _derive("array_length(range(0, 1000000000))")),
    ("a series of a row's number", _derive("array_length(generate_series(1, status_code * 10000000))")),
    ("replace that grows", _derive(f"replace(replace(path, 'i', '{'x' * 20_000}'), 'x', '{'y' * 20_000}')")),
    ("a pattern that is huge", _filter("path ~ '((\\w{100}){100}){100}'")),
    ("a pattern of each row", _filter("path ~ ('(\\w{90}|' || path || ')')")),
    ("a pattern that is long", _filter("path ~ '" + "(a|b)?" * 20_000 + "'")),
    ("a pattern that is deep", _filter("path ~ '" + "(" * 20_000 + ")" * 20_000 + "'")),
    ("a percentile of many centroids", HEAD + "  - { id: f, kind: aggregate, from: r, by: [host], window: 1h, features: [{ name: p, expr: "
     "\"approx_percentile_cont(status_code, 0.5, 1000000000000)\" }] }\n" + TAIL),
    ("two thousand features", HEAD + "  - id: f\n    kind: aggregate\n    from: r\n    by: [host]\n    window: 1h\n    features:\n"
     + "".join(f"      - {{ name: f{n}, expr: 'sum(status_code + {n})' }}\n" for n in range(2000)) + TAIL),
    ("a thousand nodes in a row", _many("filter", 1000)),
    ("an alias bomb", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12))),
    ("lists, 100,000 deep", "nodes: " + "[" * 100_000),
    ("mappings, 20,000 deep", "".join(" " * n + "a:\n" for n in range(3000))),
    ("a variable in a variable", HEAD.replace("name: x", "name: \"" + "${A:-" * 5000 + "x" + "}" * 5000 + "\"") + TAIL.replace("from: f", "from: r").replace("f: f", "f: r")),
    ("a text of 20 MB", HEAD + TAIL.replace("from: f", "from: r").replace("f: f", "f: r") + "# " + "x" * 20_000_000),
    ("a tick of a nanosecond", HEAD.replace("data_dir: d", "data_dir: d\ntick: 1ns") + TAIL.replace("from: f", "from: r").replace("f: f", "f: r")),
    ("a tick of a thousand years", HEAD.replace("data_dir: d", "data_dir: d\ntick: 9999999999h") + TAIL.replace("from: f", "from: r").replace("f: f", "f: r")),
    ("NULs", "name: \0\0"), ("no YAML", "\x1b[2J{{{"), ("nothing", ""),
]

ASN = HEAD + "  - { id: f, kind: enrich.asn, from: r, file: asn.csv }\n" + TAIL

QUICK = ("a filter of 2,000 ANDs", "parentheses, 20,000 deep", "repeat of 10^8", "repeat of a row's number", "an array of 10^9", "a pattern that is huge",
         "a pattern of each row", "an alias bomb")


def _outcome(folder: Path, command: str, codes: tuple[int, ...], *more: str) -> str:
    code, text, memory = cli(command, *more, folder / "p.yaml", limit_s=40, directory=folder)
    if code not in codes or "defect" in text or memory > MOST:
        raise Broken(f"{command}: exit code {code}, {memory / MIB:.0f} MiB: {text[-200:]!r}")
    return f"{command} {code}, {memory / MIB:.0f} MiB"


def _checked_and_run(text: str | bytes, prepare: Callable[[Path], object] = lambda _: None) -> str:
    """What `validate` and `run` make of a pipeline."""
    with tempfile.TemporaryDirectory(prefix="ja4-") as name:
        folder = Path(name)
        (folder / "p.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        (folder / "log").write_text(ROW * 100)
        prepare(folder)
        said = _outcome(folder, "validate", (0, 2))
        # 1: what a row makes is bounded at run time, and the run says so.
        return f"{said}; {_outcome(folder, 'run', (0, 1, 2, 5), '-q', '--listen', '127.0.0.1:0')}" if "kind" in str(text) else said


def references() -> list[tuple[str, Callable[[Path], object]]]:
    """Files of reference data that are none."""
    def big_name(folder: Path) -> None:
        (folder / "asn.csv").write_text(f"network,asn,country_code,name,org,domain\n203.0.113.0/24,1,DE,{'x' * 20_000_000},o,d\n")

    def many(folder: Path) -> None:
        with (folder / "asn.csv").open("w") as out:
            out.write("network,asn,country_code,name,org,domain\n")
            out.writelines(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}/32,{n},DE,n{n},o{n},d{n}\n" for n in range(300_000))

    return [
        ("a pipe as a list", lambda folder: os.mkfifo(folder / "asn.csv")),
        ("an endless list", lambda folder: (folder / "asn.csv").symlink_to("/dev/zero")),
        ("a folder as a list", lambda folder: (folder / "asn.csv").mkdir()),
        ("a socket as a list", lambda folder: socket.socket(socket.AF_UNIX).bind(str(folder / "asn.csv"))),
        ("a list that links to itself", lambda folder: (folder / "asn.csv").symlink_to("asn.csv")),
        ("a name of 20 MB in a list", big_name),
        ("a list with a byte order mark and NULs", lambda folder: (folder / "asn.csv").write_bytes(b"\xef\xbb\xbf" + bytes(1000))),
        ("a list of 300,000 networks", many),
    ]


def _reload(victim: Victim, text: str) -> str:
    """The pipeline's file becomes another, and the run is told so."""
    def outcomes() -> int:
        reloads = __import__("json").loads(get(f"{victim.base}/status")[1])["reloads"]
        return sum(reloads[name] for name in ("applied", "refused", "unchanged"))

    before = outcomes()
    right = victim.pipeline.read_text()
    victim.pipeline.write_text(text)
    victim.process.send_signal(signal.SIGHUP)
    try:
        wait_for("what became of the change", lambda: not victim.is_alive() or outcomes() > before, limit_s=40)
    except (TimeoutError, ValueError) as fault:
        raise Broken(str(fault)) from None
    finally:
        victim.pipeline.write_text(right)
    return "refused or applied"


def pipelines(report: Report, quick: bool) -> None:
    """Pipelines that are too large, or whose rows grow; files beside them."""
    for name, text in PIPELINES:
        if not quick or name in QUICK:
            report.attack("pipelines", name, lambda text=text: _checked_and_run(text))
    for name, prepare in references():
        if not quick or name in ("a pipe as a list", "an endless list"):
            report.attack("pipelines", name, lambda prepare=prepare: _checked_and_run(ASN, prepare))
    with Engines(report, "pipelines", preloaded=3000) as engines:
        changes = [(name, text) for name, text in PIPELINES if name in ("a filter of 2,000 ANDs", "a filter of 20,000 ANDs", "parentheses, 20,000 deep",
                                                                         "an alias bomb", "a pattern that is huge", "functions, 3,000 deep")]
        for name, text in changes[: 1 if quick else None]:
            where = text.partition("where: >-\n      ")[2].partition("\n")[0]
            changed = text
            if where:
                changed = PIPELINE.replace("EXTRA", f"  - id: f\n    kind: filter\n    from: requests\n    where: >-\n      {where}")
            if not report.attack("pipelines", f"reload: {name}", lambda changed=changed: _reload(engines.victim, changed), engines.victim):
                engines.renew()


def _kept(folder: Path, content: str, command: Callable[[], tuple[int, str, int]], says: str = "") -> str:
    """The output `o.jsonl` is what it was after a start that fails."""
    path = folder / "o.jsonl"
    path.write_text(content)
    code, text, _ = command()
    if code == 0 or path.read_text() != content:
        raise Broken(f"exit code {code}, {len(content)} bytes before and {path.stat().st_size} after: {text[-200:]!r}")
    return f"exit code {code}, the output is as it was{says}"


def _failed_starts(folder: Path) -> list[tuple[str, Callable[[], str]]]:
    """Starts that fail for different reasons, all of them after the plan is right."""
    old = ROW * 1000
    plain = HEAD + TAIL.replace("from: f", "from: r").replace("f: f", "f: r")
    live = plain.replace("kind: source.file, path: log", "kind: source.unix_socket, path: s.socket")

    def case(text: str, *arguments: str) -> Callable[[], str]:
        def tried() -> str:
            (folder / "p.yaml").write_text(text)
            return _kept(folder, old, lambda: cli("run", "-q", *arguments, folder / "p.yaml", limit_s=30, directory=folder))
        return tried

    def in_use() -> str:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            return case(plain, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")()

    def socket_in_use() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
            (folder / "s.socket").unlink(missing_ok=True)
            taken.bind(str(folder / "s.socket"))
            return case(live, "--listen", "127.0.0.1:0")()

    packets = "  - { id: p, kind: source.pcap, interface: nosuch0, ports: [443] }\n  - { id: h, kind: tls.client_hello, from: p }\n  - { id: ho, kind: sink.jsonl, from: h, path: h.jsonl }\n"
    return [
        ("a start with the web service's port in use", in_use),
        ("a start with the socket in use", socket_in_use),
        ("a start without the interface", case(plain.replace("serve:", packets + "serve:"), "--listen", "127.0.0.1:0")),
        ("a start with a log that is gone", case(plain.replace("path: log", "path: gone"), "--listen", "127.0.0.1:0")),
    ]


def _symlink(folder: Path) -> str:
    """A link at an output's place: what it leads to stays as it is."""
    target = folder / "precious"
    target.write_text("precious")
    (folder / "o.jsonl").unlink(missing_ok=True)
    (folder / "o.jsonl").symlink_to(target)
    (folder / "p.yaml").write_text(HEAD + TAIL.replace("from: f", "from: r").replace("f: f", "f: r"))
    code, text, _ = cli("run", "-q", "--listen", "127.0.0.1:0", folder / "p.yaml", limit_s=30, directory=folder)
    (folder / "o.jsonl").unlink(missing_ok=True)
    if target.read_text() != "precious":
        raise Broken(f"the target was written to: exit code {code}, {text[-200:]!r}")
    return f"exit code {code}, the target is as it was"


def _modes(folder: Path) -> str:
    """Whatever the umask, rows are not for everybody."""
    (folder / "p.yaml").write_text((HEAD + "  - { id: s, kind: sink.parquet, from: { r: r } }\n" + TAIL).replace("from: f", "from: r").replace("f: f", "f: r")
                                   .replace("o.jsonl", "d/rows.jsonl"))
    before = os.umask(0)
    try:
        code, text, _ = cli("run", "-q", "--listen", "127.0.0.1:0", folder / "p.yaml", limit_s=30, directory=folder)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in [folder / "d", *(folder / "d").rglob("*")]}
    wide = {name: oct(mode) for name, mode in modes.items() if mode & 0o027}
    if code or wide:
        raise Broken(f"exit code {code}, {text[-100:]!r}: {dict(list(wide.items())[:5])}")
    return f"{len(modes)} files and folders"


def _second(victim: Victim, apart: bool) -> str:
    """A second engine with the same outputs; `apart`, with a `data_dir` of its own."""
    text = victim.pipeline.read_text()
    path = victim.pipeline.with_name("second.yaml")
    if apart:
        text = text.replace("data_dir: data\n", "data_dir: other\n").replace("requests.socket", "other.socket")
    path.write_text(text)
    code, said, _ = cli("run", "-q", path, limit_s=30)
    if code == 0:
        raise Broken(f"it runs: {said[-200:]!r}")
    return f"exit code {code}"


def outputs(report: Report, quick: bool) -> None:
    """What is where outputs go."""
    with tempfile.TemporaryDirectory(prefix="ja4-") as name:
        folder = Path(name)
        (folder / "log").write_text(ROW * 100)
        for what, action in _failed_starts(folder):
            report.attack("outputs", what, action)
        report.attack("outputs", "a link at an output's place", lambda: _symlink(folder))
        report.attack("outputs", "umask 0", lambda: _modes(folder))
    if quick:
        return
    with Engines(report, "outputs", preloaded=3000) as engines:
        for what, apart in (("a second engine", False), ("a second engine that shares an output", True)):
            if not report.attack("outputs", what, lambda apart=apart: _second(engines.victim, apart), engines.victim):
                engines.renew()


def text(report: Report) -> None:
    """Names of hellos at a terminal; tests/cli/test_text.py has all commands."""
    def shown(kind: str) -> str:
        with tempfile.TemporaryDirectory(prefix="ja4-") as name:
            path = Path(name) / "h.pcap"
            words = tuple(word for word in terminal.CORPUS if word)
            path.write_bytes(capture(words))
            _, said = terminal.run("fingerprint", "--format", kind, path)
            rows = len(said.splitlines()) - (kind != "json")
            if terminal.hidden(said) or rows != len(words) or "\nFORGED" in said:
                raise Broken(f"{rows} rows of {len(words)} hellos; {sorted(map(ascii, terminal.hidden(said)))}")
            return f"{rows} rows of {len(words)} hellos"
    for kind in ("table", "csv", "json"):
        report.attack("text", f"fingerprint --format {kind} at a terminal", lambda kind=kind: shown(kind))
