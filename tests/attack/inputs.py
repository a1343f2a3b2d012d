"""Attacks by what sources read: lines of logs, captures."""

import gzip
import json
import random
import tempfile
import time
from pathlib import Path

from tests.attack.queries import Engines
from tests.attack.report import Report
from tests.attack.victim import MIB, Broken, Bounds, Victim, cli
from tests.support import RECORDING, as_pcapng
from tests.terminal import CORPUS

# Bytes that one datagram of a Unix socket holds by default, with room for its own needs.
DATAGRAM = 190_000


def _line(**more: object) -> bytes:
    return json.dumps({"timestamp": time.time_ns(), "src_ip": "203.0.113.9", "host": "h", "path": "/", **more}).encode()


def bad_lines() -> list[tuple[str, bytes]]:
    """Lines that are no rows, or rows of somebody who means harm."""
    now = time.time_ns()
    base = f'{{"timestamp":{now},"src_ip":"203.0.113.9","host":"h"'
    found = [
        ("nothing", b""), ("a line end", b"\n"), ("blanks", b" " * 1000), ("a NUL", b"\0"), ("bytes", bytes(range(256))), ("no UTF-8", b"\xff\xfe\x80"),
        ("no JSON", b"GET / HTTP/1.1"), ("half an object", b'{"timestamp":'), ("a list", b"[]"), ("a number", b"1"), ("null", b"null"), ("a text", b'"x"'),
        ("two objects", b"{}{}"), ("deep lists", b"[" * 100_000), ("deep objects", b'{"a":' * 30_000), ("deep in a key", f'{base},"path":{"[" * 50_000}'.encode()),
        ("a key twice", f'{base},"host":"a","host":"b"}}'.encode()), ("ten thousand keys", f'{base},{",".join(f"{chr(34)}k{n}{chr(34)}:1" for n in range(10_000))}}}'.encode()),
        ("a long key", f'{base},"{"k" * 150_000}":1}}'.encode()), ("a long text", _line(path="a" * 150_000)), ("a long host", _line(host="a" * 150_000)),
        ("a huge number", f'{base},"status_code":{"9" * 100_000}}}'.encode()), ("a huge exponent", f'{base},"status_code":1e999999999}}'.encode()),
        ("a fraction", f'{base},"status_code":200.5}}'.encode()), ("a negative status", f'{base},"status_code":-1}}'.encode()),
        ("a port too large", f'{base},"src_port":99999999999}}'.encode()), ("NaN", f'{base},"status_code":NaN}}'.encode()),
        ("a time of 1970", b'{"timestamp":0,"src_ip":"203.0.113.9","host":"h"}'), ("a negative time", b'{"timestamp":-9223372036854775808,"src_ip":"203.0.113.9"}'),
        ("a time too large", b'{"timestamp":99999999999999999999,"src_ip":"203.0.113.9"}'), ("a time of text", b'{"timestamp":"now","src_ip":"203.0.113.9"}'),
        ("no address", b'{"timestamp":1,"src_ip":"nowhere"}'), ("an address with a zone", f'{{"timestamp":{now},"src_ip":"fe80::1%eth0"}}'.encode()),
        ("a long address", f'{{"timestamp":{now},"src_ip":"{"1" * 100_000}"}}'.encode()), ("lone surrogates", f'{base},"path":"\\ud800\\udc00\\udfff\\ud800"}}'.encode()),
        ("bad escapes", f'{base},"path":"\\x41\\u12\\q"}}'.encode()), ("raw control characters", f'{base},"path":"'.encode() + bytes(range(1, 32)) + b'"}'),
        ("a byte order mark", b"\xef\xbb\xbf" + _line()), ("UTF-16", _line().decode().encode("utf-16")), ("an overlong encoding", f'{base},"path":"'.encode() + b"\xc0\xaf\xe0\x80\xaf" + b'"}'),
        ("nested values for texts", f'{base},"path":{{"a":[1,{{"b":2}}]}},"method":[],"header_User-Agent":true}}'.encode()),
        ("many lines in one", b"\n".join([_line()] * 500)), ("many bad lines in one", b"x\n" * 5000), ("a line without an end", b"x" * DATAGRAM),
        ("half of the lines are bad", b"\n".join([_line(), b"{"] * 300)), ("a header's name that is long", f'{base},"header_{"X" * 60_000}":"a"}}'.encode()),
        ("ten thousand headers", f'{base},{",".join(f"{chr(34)}header_X-{n}{chr(34)}:{chr(34)}a{chr(34)}" for n in range(5_000))}}}'.encode()),
        ("a method of a megabyte's part", _line(method="M" * 100_000)), ("escapes only", base.encode() + b',"path":"' + b"\\u0041" * 20_000 + b'"}'),
    ]
    return found + [(f"the word {nth} of a client", _line(host=word, path=word, method=word, query=word, header_x=word)) for nth, word in enumerate(CORPUS)]


def _send(victim: Victim, cases: list[tuple[str, bytes]]) -> str:
    for name, line in cases:
        try:
            victim.send(line)
        except OSError as error:
            raise Broken(f"{name}: {error}") from None
        if not victim.is_alive():
            raise Broken(f"{name}: the run has ended")
    time.sleep(1)
    return f"{len(cases)} lines"


def _bytes_in_lines(victim: Victim, datagrams: int) -> str:
    """Lines of one byte: each may become a rejected row a hundred times its size."""
    data = b"x\n" * (DATAGRAM // 2)
    for _ in range(datagrams):
        victim.send(data)
    time.sleep(3)
    return f"{datagrams * len(data) // 2} lines of a byte"


def _long_keys(victim: Victim, count: int) -> str:
    """Each row is a group of its own, whose key is long."""
    for nth in range(count):
        victim.send(_line(host=f"{nth}-" + "k" * 8000))
    time.sleep(3)
    return f"{count} groups whose keys have 8 kB"


def lines(report: Report, quick: bool) -> None:
    """Lines to a socket of a run."""
    with Engines(report, "lines", preloaded=3000) as engines:
        cases = bad_lines()
        if not report.attack("lines", "lines that are no rows", lambda: _send(engines.victim, cases), engines.victim):
            for case in cases:
                engines.renew()
                if not report.attack("lines", f"alone: {case[0]}", lambda case=case: _send(engines.victim, [case]), engines.victim):
                    break
            engines.renew()
    if quick:
        return
    # What is kept of rows is bounded in bytes, by more than what a query may move the run.
    for name, action, mib in (
        ("lines of one byte", lambda victim: _bytes_in_lines(victim, 60), 512), ("keys of 8 kB", lambda victim: _long_keys(victim, 40_000), 900),
    ):
        with Engines(report, "lines", bounds=Bounds(run_mib=mib, status_s=8, sql_s=25), preloaded=500) as engines:
            report.attack("lines", name, lambda action=action, engines=engines: action(engines.victim), engines.victim)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Some bytes of a file are others, or are gone, or are there twice."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 3, 10, 100))):
        at = rng.randrange(len(data))
        kind = rng.random()
        if kind < 0.4:
            data[at] ^= 1 << rng.randrange(8)
        elif kind < 0.55:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f"))
        elif kind < 0.7:
            del data[at : at + rng.choice((1, 4, 100))]
        elif kind < 0.85:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
        else:
            data[at:at] = data[at : at + 1000]
        if len(data) < 100:
            break
    return bytes(data[: rng.randrange(1, len(data))] if rng.random() < 0.1 else data)


def _fingerprints(files: list[Path]) -> str:
    code, text, memory = cli("fingerprint", *files, limit_s=120)
    if code not in (0, 1) or "defect" in text or memory > 400 * MIB:
        raise Broken(f"exit code {code}, {memory / MIB:.0f} MiB: {text[-200:]!r}")
    return f"{len(files)} files, exit code {code}, {memory / MIB:.0f} MiB"


def captures(report: Report, quick: bool, seed: int) -> None:
    """Capture files with damage that is drawn, and some that are made to hurt."""
    rng = random.Random(seed)
    whole = (RECORDING / "capture.pcap").read_bytes()[: 200_000]
    with tempfile.TemporaryDirectory(prefix="ja4-") as name:
        folder = Path(name)
        for batch in range(1 if quick else 8):
            files = []
            for nth in range(40 if quick else 150):
                path = folder / f"{batch}-{nth}"
                content = mutated(as_pcapng(whole) if nth % 2 else whole, rng)
                path.write_bytes(gzip.compress(content, 1) if nth % 5 == 0 else content)
                files.append(path)
            report.attack("captures", f"damaged captures, seed {seed}, batch {batch + 1}", lambda files=files: _fingerprints(files))
        special = {
            "empty": b"", "a head alone": whole[:24], "a record of 4 GB": whole[:24] + b"\0" * 8 + b"\xff" * 8,
            "a block of 4 GB": as_pcapng(whole)[:28] + b"\x06\0\0\0\xff\xff\xff\xff" + bytes(100), "a block of no length": as_pcapng(whole)[:28] + bytes(5000),
            "a hundred thousand interfaces": as_pcapng(whole)[:28] + as_pcapng(whole)[28:48] * 100_000,
        }
        if not quick:
            special["256 MB of zeros, packed"] = b"".join([gzip.compress(whole[:24], 1), *[gzip.compress(bytes(1 << 26), 1)] * 4])
        for what, content in special.items():
            path = folder / "special"
            path.write_bytes(content)
            report.attack("captures", what, lambda path=path: _fingerprints([path]))
