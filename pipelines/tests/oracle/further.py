"""The features of model.yaml and sequence.yaml, recomputed in plain Python from the rows of a group in their order.

Written from their definitions, by other means than the expressions: loops over requests, the end of a name instead of a
regular expression, digits of whole nanoseconds.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from statistics import mean, pvariance

HOUR = 3_600_000_000_000
ASSETS = set("css js mjs map png jpg jpeg gif webp avif svg ico bmp woff woff2 ttf otf eot mp3 mp4 webm wasm".split())
PAGES = set("htm html xhtml php asp aspx jsp".split())
ATTACKS = ("../", "%2e%2e", "<script", "%3cscript", "etc/passwd", "${", "%24%7b", "%00")
USUAL_TYPES = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


def further(rows: Iterable[dict]) -> dict[tuple, dict]:
    """The features of each group, by (window_start, host, src_ip, ja4); rows as features.flat gives them."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["t"] // HOUR * HOUR, row["host"], row["src_ip"], row["ja4"]].append(row)
    return {key: of_group(sorted(group, key=lambda row: (row["t"], row["seq"]))) for key, group in groups.items()}


def of_group(rows: list[dict]) -> dict:
    """All features of a group."""
    return {**volume(rows), **paths(rows), **headers(rows), **transport(rows), **gaps(rows), **cascade(rows)}


def volume(rows: list[dict]) -> dict:
    """Connections, minutes, sizes, durations."""
    n = len(rows)
    connections = {(row["src_port"], row["hello_t"]) for row in rows}
    minutes = Counter(row["t"] // 60_000_000_000 for row in rows)
    durations = known(rows, "duration")
    slow = sum(duration >= 10_000 for duration in durations)
    sizes = [len(row["path"]) + len(row["query"] or "") for row in rows if row["path"] is not None]
    return {
        "reqs_per_conn": n / len(connections),
        "peak_1m_share": max(minutes.values()) / n,
        "port_exhaustion_ratio": len(set(known(rows, "src_port"))) / (n + 1),
        "request_size_variance": float(pvariance(sizes)) if sizes else None,
        "slow_requests": slow if durations else None,
        "slow_request_ratio": slow / len(durations) if durations else None,
    }


def paths(rows: list[dict]) -> dict:
    """What is asked for, one request after the other."""
    n = len(rows)
    texts = known(rows, "path")
    cut = [tuple((path.split("/") + ["", ""])[1:3]) for path in texts]
    return {
        "favicon_requested": any(is_icon(path) for path in texts),
        "direct_access_ratio": sum(row["referer"] is None for row in rows) / n,
        "anomalous_payload_ratio": sum(is_attack(row["path"]) or is_attack(row["query"]) for row in rows) / n,
        "path_transition_entropy": conditional_entropy(cut),
        "seq_id_ratio": sum(in_path or in_query for in_path, in_query in
                            zip(steps(rows, "path"), steps(rows, "query"))) / n,
    }


def headers(rows: list[dict]) -> dict:
    """What is sent, and in which order."""
    n = len(rows)
    orders = Counter(known(rows, "order"))
    cookies = known(rows, "cookie")
    types = [kind.lower() for kind in known(rows, "content_type")]
    return {
        "has_accept_language": bool(known(rows, "language")),
        "has_cookie": any(cookies) if cookies else None,
        "has_referer": bool(known(rows, "referer")),
        "has_sec_ch_ua": bool(known(rows, "ch_ua")),
        "is_ua_rotating": len(set(known(rows, "ua"))) > 1,
        "sec_ch_mobile_mismatch": sum(
            row["ch_mobile"] in ("?0", "?1") and (row["ch_mobile"] == "?1") != ("Mobile" in (row["ua"] or ""))
            for row in rows) / n,
        "unusual_content_type_ratio": sum(not kind.startswith(USUAL_TYPES) for kind in types) / n,
        "distinct_header_orders": len(orders) or None,
        "header_order_confidence": max(orders.values()) / orders.total() if orders else None,
    }


def transport(rows: list[dict]) -> dict:
    """What TLS and TCP say, where they are the client's own."""
    seen = [row for row in rows if row["correlated"] and row["xff"] is None]
    first = [row for row in seen if row["keepalives"] == 1]
    windows, delays = known(first, "win"), known(first, "syn_ms")
    usual_mss = sum(row["mss"] == 1460 for row in seen) > 0.8 * len(rows)
    return {
        "true_window_size": mean(windows) if windows else None,
        "tcp_jitter_variance": pvariance(delays) if delays else None,
        "mss_mobile_mismatch": (bool(known(rows, "ch_ua")) and usual_mss) if seen else None,
    }


def gaps(rows: list[dict]) -> dict:
    """The first digits of the gaps: those of whole nanoseconds are those of milliseconds."""
    between = [later["t"] - earlier["t"] for earlier, later in zip(rows, rows[1:])]
    digits = Counter(int(str(gap)[0]) for gap in between if gap)
    n = digits.total()
    law = {digit: math.log10((digit + 1) / digit) for digit in range(1, 10)}
    chi2 = math.fsum((digits[digit] / n - share) ** 2 / share for digit, share in law.items()) if n >= 10 else None
    return {"iat_benford_chi2": chi2}


def cascade(rows: list[dict]) -> dict:
    """Pages, and the static files that follow them."""
    pages, page, is_open = 0, None, False
    firsts, all_files, root, after_root = [], [], None, None
    for row in rows:
        if is_page(row["path"]):
            pages, page, is_open = pages + 1, row["t"], True
        if is_asset(row["path"]):
            if is_open:
                firsts.append((row["t"] - page) / 1e6)
            if page is not None and row["t"] - page <= 30 * 10**9:
                all_files.append((row["t"] - page) / 1e6)
            if root is not None and after_root is None:
                after_root = (row["t"] - root) / 1e6
            is_open = False
        if row["path"] == "/" and root is None:
            root = row["t"]
    return {
        "cascade_ratio": len(firsts) / pages if pages else None,
        "asset_after_page_ms": mean(firsts) if firsts else None,
        "asset_load_stddev": math.sqrt(pvariance(all_files)) if all_files else None,
        "root_to_first_asset_delay": after_root,
    }


def known(rows: Iterable[dict], name: str) -> list:
    """The values that are there."""
    return [row[name] for row in rows if row[name] is not None]


def ending(path: str) -> str:
    """What stands after the last dot of a path that is not followed by a slash."""
    return path.rpartition("/")[2].rpartition(".")[2] if "." in path.rpartition("/")[2] else ""


def is_asset(path: str | None) -> bool:
    """A static file, by its ending."""
    return path is not None and ending(path) in ASSETS


def is_page(path: str | None) -> bool:
    """No ending, or that of a page."""
    return path is not None and (ending(path) in PAGES or "/" in path and "." not in path.rpartition("/")[2])


def is_icon(path: str) -> bool:
    """What browsers ask for unasked."""
    name = path.rpartition("/")[2]
    is_named = name.startswith(("favicon", "apple-touch-icon")) and "/" in path
    return is_named and name.endswith((".ico", ".png", ".svg", ".gif"))


def is_attack(text: str | None) -> bool:
    """Traversal, script, template or SQL."""
    lower = (text or "").lower()
    selects = (at.start() - 5 for at in re.finditer("select", lower))
    starts = [at.start() for at in re.finditer("union", lower)]
    injects = any(1 <= select - start <= 20 for select in selects for start in starts)
    return injects or any(part in lower for part in ATTACKS)


def steps(rows: list[dict], name: str) -> Iterator[bool]:
    """Whether the last number of a text is one away from the last number of the latest text that has one."""
    before = None
    for row in rows:
        numbers = re.findall("[0-9]+", row[name] or "")
        number = int(numbers[-1][-18:]) if numbers else None
        yield number is not None and before is not None and abs(number - before) == 1
        before = before if number is None else number


def conditional_entropy(values: list) -> float | None:
    """Bits of a value, given the one before it."""
    if len(values) < 2:
        return None
    follows = defaultdict(Counter)
    for one, other in zip(values, values[1:]):
        follows[one][other] += 1
    n = len(values) - 1
    return -math.fsum(count / n * math.log2(count / row.total()) for row in follows.values() for count in row.values())
