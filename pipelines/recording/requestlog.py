"""Apache's log of the recording as JSON lines with the keys of mod_reqin_log.

`log_format()` gives the LogFormat; `convert()` reads what Apache wrote with it, undoes httpd's
escapes (`\\xhh`, which JSON does not know) and writes JSON. A line that does not parse raises:
nothing is dropped.
"""

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

HEADERS = (
    "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "X-Request-Id", "X-Trace-Id",
    "X-Forwarded-For", "Referer", "Sec-CH-UA", "Sec-CH-UA-Mobile", "Sec-CH-UA-Platform", "Sec-Fetch-Dest",
    "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User",
)

# Field name -> httpd's format. `%r` and not `%U`: it holds the target as the client sent it, where
# `%U` has lost the escapes and shows /index.html for /.
FIELDS = {
    "begin_us": "%{begin:usec}t",
    "src_ip": "%a",
    "src_port": "%{remote}p",
    "dst_ip": "%A",
    "dst_port": "%{local}p",
    "method": "%m",
    "request_line": "%r",
    "http_version": "%H",
    "tls": "%{SSL_PROTOCOL}x",
    "host": "%{Host}i",
    "status_code": "%>s",
    "response_size": "%B",
    "duration_us": "%D",
    "has_cookie": "%{has_cookie}e",
    "has_authorization": "%{has_authorization}e",
    "forensic_id": "%{forensic-id}n",
    **{f"header_{name}": f"%{{{name}}}i" for name in HEADERS},
}

ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
SIMPLE = {"b": "\b", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}


def log_format() -> str:
    """The argument of the LogFormat directive, without its quotes."""
    return r"\t".join(FIELDS.values())


def convert(access: Path, header_names: Path, output: Path) -> list[dict]:
    """Writes `output` from Apache's two raw logs and returns the requests in the log's order."""
    names = {}
    for line in header_names.read_text(encoding="utf-8").splitlines():
        identity, listed = line.split("\t")
        names[identity] = listed
    requests = [parse(line, names) for line in access.read_text(encoding="ascii").splitlines()]
    with output.open("w", encoding="utf-8") as out:
        for request in requests:
            out.write(json.dumps(request, ensure_ascii=False, separators=(",", ":")) + "\n")
    return requests


def parse(line: str, names: dict[str, str]) -> dict:
    """One line of the raw log as one request."""
    values = [unescape(value) for value in line.split("\t")]
    if len(values) != len(FIELDS):
        raise ValueError(f"{len(values)} fields instead of {len(FIELDS)} in {line!r}")
    raw = dict(zip(FIELDS, values))
    micros = int(raw["begin_us"])
    path, query = target(raw["request_line"])
    request = {
        "time": datetime.fromtimestamp(micros // 1_000_000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        + f".{micros % 1_000_000:06}Z",
        "timestamp": micros * 1000,
        "src_ip": raw["src_ip"],
        "src_port": int(raw["src_port"]),
        "dst_ip": raw["dst_ip"],
        "dst_port": int(raw["dst_port"]),
        "method": present(raw["method"]) or "",
        "scheme": "https" if present(raw["tls"]) else "http",
        "host": host_name(present(raw["host"]) or ""),
        "path": path,
        "query": query,
        "http_version": raw["http_version"],
        "status_code": int(raw["status_code"]),
        "response_size": int(raw["response_size"]),
        "duration_ms": int(raw["duration_us"]) // 1000,
        "has_cookie": present(raw["has_cookie"]) is not None,
        "has_authorization": present(raw["has_authorization"]) is not None,
    }
    for name in HEADERS:
        value = present(raw[f"header_{name}"])
        if value is not None:
            request[f"header_{name}"] = value
    # A request that Apache refused before reading its headers has no forensic line.
    listed = names.get(raw["forensic_id"])
    if listed is not None:
        request["client_headers"] = listed
        request["header_order_signature"] = listed.replace(",", ";")
    return request


def unescape(value: str) -> str:
    """Undoes ap_escape_logitem; the bytes are UTF-8, or Latin-1 where they are not."""
    text = ESCAPE.sub(lambda m: SIMPLE[m[1]] if m[1] in SIMPLE else chr(int(m[1][1:], 16)), value)
    raw = text.encode("latin-1")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return text


def present(value: str) -> str | None:
    """httpd writes `-` for what is not there."""
    return None if value in ("-", "") else value


def host_name(host: str) -> str:
    """The Host header's name: lower case, without port."""
    return urlsplit(f"//{host}").hostname or ""


def target(request_line: str) -> tuple[str, str]:
    """Path and query of the request target; both empty if the client sent no request line."""
    parts = request_line.split(" ")
    if len(parts) < 2:
        return "", ""
    text = parts[1]
    if "://" in text.split("?")[0]:
        text = "/" + text.split("://", 1)[1].partition("/")[2]
    path, _, query = text.partition("?")
    return path, query
