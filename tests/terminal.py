"""A command at a terminal of its own, and what must not reach it."""

import contextlib
import os
import pty
import select
import subprocess
import time
from pathlib import Path

from tests.support import ENGINE, LIMIT_S

# What the progress bar clears its line with; no word below has it.
OWN = b"\r\x1b[2K"

# Words of a client: control sequences of 7 and of 8 bits, a new line that looks like a row, directions, what is not seen, formulas,
# HTML, a long word, other scripts. All of them are UTF-8.
CORPUS = (
    "ok.example", "\x1b[31mRED\x1b]0;pwn\x07\x1b[2J", "\u009b31mC1\u0085next", "evil\u202etxt.exe\u202c", "a\r\nFORGED 1 0 ok\n", "tab\there",
    "\n\nFORGED", "=cmd|'/C calc'!A0", "@SUM(1)", "+1+1", "-2+3", "\t=1", "\r=1", " =1", "\uff1d1+1", '"=1', "<script>x</script>",
    "zero\u200bwidth\u00ad\ufeff", "tag\U000e0041", "\u2066isolate\u2069\u2028line\u2029", "w" * 8192, "日本語 é ü", "del\x7f\x08\x08", "\x00nul",
    "a,b;c\"d", "{\"a\":1}", "$(id)`id`", "%s%n%1$s", "\\u001b[31m",
)


def is_hidden(c: str) -> bool:
    """What a terminal may obey or does not show: by Unicode's categories, with no look at the engine's own list."""
    import unicodedata

    # Signs before Arabic numbers and the like are of Cf, too, and are seen.
    seen = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    return unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and ord(c) not in seen


def hidden(text: str) -> set[str]:
    """The characters of a text that must not be in it, besides line feeds."""
    return {c for c in set(text) if c != "\n" and is_hidden(c)}


def run(*arguments: object, environment: dict | None = None, directory: Path | None = None, both: bool = True) -> tuple[int, str]:
    """Exit code, and what a command writes to a terminal that is its standard output and, with `both`, its standard error. No
    colour is asked for, so that each escape sequence is one too many.
    """
    ours, its = pty.openpty()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    variables = kept | {"TERM": "xterm", "NO_COLOR": "1", "LANG": "C.UTF-8"} | (environment or {})
    try:
        process = subprocess.Popen(
            [ENGINE, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=its, stderr=its if both else subprocess.DEVNULL,
            env={name: str(value) for name, value in variables.items()}, cwd=directory,
        )
    finally:
        os.close(its)
    end, pieces = time.monotonic() + LIMIT_S, []
    try:
        while time.monotonic() < end:
            if not select.select([ours], [], [], 0.5)[0]:
                continue
            # The other side is closed.
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:
                break
            if not piece:
                break
            pieces.append(piece)
        code = process.wait(max(1, end - time.monotonic()))
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    # The terminal makes CR LF of a line feed, and CSV ends its lines so, too; any other CR is one too many.
    text = b"".join(pieces).replace(OWN, b"\n").replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n")
    return code, text.decode("utf-8", "surrogateescape")
