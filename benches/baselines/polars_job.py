"""Question: how fast is the engine's job as one batch in Polars, JSON lines on disk to JSON lines on disk?

The features are those of pipelines/features/standard.yaml, in Polars' own expressions. Differs from the engine as
duckdb_job.py does: everything is read before anything is written, no row is ever late, a hello never comes after its
request (the engine tolerates 500 ms), and a request whose latest hello has expired does not look for an earlier one.

Usage: POLARS_MAX_THREADS=2 /usr/bin/time -v python3 polars_job.py INPUT_DIRECTORY OUTPUT_DIRECTORY
"""

import argparse
import math
import time
from pathlib import Path

import polars as pl

from columns import HEADERS, HELLO, HOUR, KEY, REQUEST, column

# Its JSON reader knows no small integers.
TYPES = {
    "BIGINT": pl.Int64, "UBIGINT": pl.Int64, "USMALLINT": pl.Int64, "UTINYINT": pl.Int64, "DOUBLE": pl.Float64,
    "BOOLEAN": pl.Boolean, "VARCHAR": pl.String,
}
CONNECTION = ("src_ip", "src_port", "b_timestamp")
ASSET = r"[.](css|js|mjs|map|png|jpe?g|gif|webp|avif|svg|ico|bmp|woff2?|ttf|otf|eot|mp3|mp4|webm|wasm)$"
PAGE = r"(/[^./]*|[.](html?|xhtml|php|aspx?|jsp))$"
HEALTH = r"^/(health|healthz|health-?check|livez?|readyz?|ping|status|heartbeat|up)([/.]|$)"
SENSITIVE = (
    r"(?i)(wp-login|wp-admin|wp-config|xmlrpc[.]php|/[.](env|git|svn|hg|aws|ssh|ht|ds_store)|phpmyadmin|/pma(/|$)|"
    r"cgi-bin|/actuator|server-status|etc/passwd|phpunit|/solr/|/manager/html|phpinfo|"
    r"[.](sql|bak|old|swp|pem|key)$|(backup|dump)[.](zip|tar|t?gz))"
)
LOGIN = r"(?i)/(login|log-in|logon|signin|sign-in|sign_in|auth|authenticate|sessions?|wp-login)([/.]|$)"
CHROMIUM = r"(Chrome|Chromium)/(89|9[0-9]|[1-9][0-9][0-9])[.]"
LIBRARY = (
    r"(?i)^(curl|wget|python|okhttp|go-http-client|node|undici|axios|java|apache-httpclient|libwww|lwp|ruby|php|guzzle|"
    r"aiohttp|httpx|scrapy|dart|rust|reqwest|perl|postman|insomnia|powershell)([-/ _.;(]|$)"
)
AUTOMATION = r"(?i)(headless|phantomjs|selenium|webdriver|puppeteer|playwright|cypress|slimerjs|electron/)"
UNIX = r"(Linux|Android|Mac OS X|iPhone|iPad|CrOS)"

c = pl.col
agent = c("header_user_agent").fill_null("")
hints = c("header_sec_ch_ua").fill_null("")


def correlate(source: Path) -> pl.LazyFrame:
    """The requests with their hellos; the hello's columns are null on orphans."""
    requests = read(source / "requests.jsonl", REQUEST).with_row_index("seq").rename({"timestamp": "a_timestamp"})
    hellos = read(source / "hellos.jsonl", HELLO).rename({"timestamp": "b_timestamp"})
    own = [name for name in HELLO if name not in ("timestamp", "src_ip", "src_port")] + ["b_timestamp"]
    hit = c("broken").is_not_null() & (c("broken") == 0)
    return (
        requests.sort("a_timestamp", "seq")
        .join_asof(hellos.sort("b_timestamp"), left_on="a_timestamp", right_on="b_timestamp",
                   by=["src_ip", "src_port"], strategy="backward", check_sortedness=False)
        # Alive while no gap on the connection was longer than allowed.
        .with_columns(previous=c("a_timestamp").shift(1).over(CONNECTION))
        .with_columns(gap=pl.when(c("previous").is_null()).then(c("a_timestamp") - c("b_timestamp") > 10_000_000_000)
                      .otherwise(c("a_timestamp") - c("previous") > 120_000_000_000))
        .with_columns(broken=c("gap").cast(pl.Int32).cum_sum().over(CONNECTION),
                      number=pl.int_range(1, pl.len() + 1).over(CONNECTION))
        .with_columns(broken=pl.when(c("b_timestamp").is_not_null()).then(c("broken")))
        .with_columns(
            *(pl.when(hit).then(c(name)).alias(name) for name in own),
            correlated=hit.cast(pl.UInt8), orphan_side=pl.when(hit).then(pl.lit("")).otherwise(pl.lit("A")),
            keepalives=pl.when(hit).then(c("number")).otherwise(0).cast(pl.UInt16),
            time=pl.from_epoch(c("a_timestamp"), time_unit="ns"),
        )
        .drop("previous", "gap", "broken", "number")
    )


def by_row() -> dict[str, pl.Expr]:
    """What the features need of each row; `gap_ms` is there already."""
    chromium = agent.str.contains(CHROMIUM)
    no_upgrade = c("status_code").fill_null(0) != 101
    version, alpn = c("ja4").str.slice(1, 2), c("ja4").str.slice(8, 2)
    major = pl.concat_str(
        pl.lit('"Chromium";v="'), agent.str.extract(r"Chrome/([^.]*)", 1).fill_null(""), pl.lit('"')
    )
    platform, mobile = c("header_sec_ch_ua_platform"), c("header_sec_ch_ua_mobile")
    says = {"Windows": "Windows", "macOS": "Mac OS X", "Android": "Android", "Linux": "Linux"}
    other_system = pl.any_horizontal(
        *((platform == f'"{hint}"') & ~agent.str.contains(name, literal=True) for hint, name in says.items()),
        (platform == '"Linux"') & agent.str.contains("Android", literal=True),
    ).fill_null(False)
    says_mobile = agent.str.contains("Mobile", literal=True)
    other_kind = (((mobile == "?1") & ~says_mobile) | ((mobile == "?0") & says_mobile)).fill_null(False)
    ttl = c("ip_meta_ttl")
    return {
        "minute": c("a_timestamp") // 60_000_000_000 % 60,
        "connection": pl.concat_str(c("src_port"), pl.lit("-"), c("b_timestamp").fill_null(0)),
        "target_length": c("path").str.len_chars() + c("query").fill_null("").str.len_chars(),
        "depth": c("path").str.count_matches("/", literal=True).cast(pl.Int64),
        "gap_bin": (1 + c("gap_ms")).log(2).floor().clip(upper_bound=15),
        "asset": c("path").str.contains(ASSET),
        "page": c("path").str.contains(PAGE),
        "health": c("path").str.contains(HEALTH),
        "sensitive": c("path").str.contains(SENSITIVE),
        "login": (c("method") == "POST") & c("path").str.contains(LOGIN),
        "headers": pl.sum_horizontal(c(column(f"header_{name}")).is_not_null().cast(pl.Int32) for name in HEADERS),
        "chromium": chromium,
        "no_hints": chromium & c("header_sec_ch_ua").is_null() & (c("scheme") != "http")
        & (c("method") != "OPTIONS") & no_upgrade,
        "other_hints": (hints != "") & (~hints.str.contains(major, literal=True) | other_system | other_kind),
        "library": c("header_user_agent").is_null() | agent.str.contains(LIBRARY),
        "automation": agent.str.contains(AUTOMATION),
        "fake": (c("header_sec_fetch_mode") == "navigate").fill_null(False)
        & ~c("header_sec_fetch_dest").fill_null("").is_in(["document", "iframe", "frame", "embed", "object"]),
        "plain_h1": (alpn == "h2") & c("http_version").is_in(["HTTP/1.0", "HTTP/1.1"]),
        "other_host": (c("tls_sni") != "") & (c("host") != "")
        & (c("tls_sni").str.to_lowercase() != c("host").str.to_lowercase().str.split(":").list.first()),
        "no_sni": (c("correlated") == 1) & (c("tls_sni").fill_null("") == ""),
        "old_tls": (c("correlated") == 1) & (version != "13"),
        "other_tls": (c("correlated") == 1) & no_upgrade & chromium
        & ((version != "13") | ~alpn.is_in(["h2", "h3"])),
        "other_ttl": ((ttl <= 64) & agent.str.contains("Windows NT", literal=True))
        | ((ttl > 64) & (ttl <= 128) & agent.str.contains(UNIX))
        | ((ttl > 128) & agent.str.contains(f"{UNIX}|Windows NT")),
    }


def by_group() -> dict[str, pl.Expr]:
    """The features; entropies, which need counts of values, are joined to them."""
    n = pl.len()
    first = c("keepalives") == 1
    gap, gaps = c("gap_ms"), c("gap_ms").count()
    mean, variance = gap.mean(), gap.var(ddof=0)
    seconds = (c("a_timestamp").max() - c("a_timestamp").min()) / 1e9
    connections = c("connection").n_unique()
    seen = (c("correlated") == 1) & c("header_x_forwarded_for").is_null()
    first = first & seen
    known = c("connection").filter(seen).n_unique()
    queries = c("query").filter(c("query") != "").n_unique()
    missing = c("path").filter(c("status_code") == 404).n_unique()
    agents = c("header_user_agent").drop_nulls().n_unique()
    syn = c("syn_to_clienthello_ms").filter(first)

    def share(condition: pl.Expr) -> pl.Expr:
        return condition.sum() / n

    def of_seen(condition: pl.Expr) -> pl.Expr:
        return ratio((condition & seen).sum(), seen.sum())

    def ratio(top: pl.Expr, bottom: pl.Expr) -> pl.Expr:
        return pl.when(bottom != 0).then(top / bottom)

    return {
        "hits": n, "first_seen": c("a_timestamp").min(), "last_seen": c("a_timestamp").max(),
        "hit_velocity": n / pl.max_horizontal(seconds, pl.lit(1.0)),
        "active_minutes": c("minute").n_unique() / 60, "conn_count": connections,
        "multiplexing_efficiency": n / (connections + 1), "max_keepalives": c("keepalives").max(),
        "src_port_density": c("src_port").n_unique() / n,
        "req_size_cv": ratio(c("target_length").std(ddof=0), c("target_length").mean()),
        "non_standard_port_ratio": share(~c("dst_port").is_in([80, 443])),
        "iat_mean_log": (1 + mean).log(), "iat_cv": ratio(gap.std(ddof=0), mean),
        "iat_burst_ratio": ratio((gap < 100).sum(), n - 1), "pause_ratio": ratio((gap > 5000).sum(), n - 1),
        "lag1_autocorrelation": pl.when(gaps >= 4).then(
            pl.when(variance <= 1e-4 * mean * mean).then(0.0)
            .otherwise(((gap * c("prev_gap_ms")).mean() - mean * mean) / variance)),
        "uniq_paths": c("path").n_unique(), "uniq_query_params": queries,
        "path_diversity_ratio": c("path").n_unique() / n, "fuzzing_index": queries / (c("path").n_unique() + 1),
        "depth_mean": c("depth").mean(), "url_depth_variance": c("depth").var(ddof=0),
        "asset_ratio": share(c("asset")), "page_ratio": share(c("page")),
        "robots_txt": (c("path") == "/robots.txt").any(), "health_path_ratio": share(c("health")),
        "sensitive_path_ratio": share(c("sensitive")), "post_ratio": share(c("method") == "POST"),
        "head_ratio": share(c("method") == "HEAD"),
        "other_method_ratio": share(~c("method").is_in(["GET", "HEAD", "POST"])), "login_posts": c("login").sum(),
        "login_failures": (c("login") & c("status_code").is_in([401, 403, 422, 429])).sum(),
        "login_post_concentration": share(c("login")), "r4xx_ratio": share(c("status_code").is_between(400, 499)),
        "distinct_404": missing, "r404_distinct": missing / n,
        "http10_ratio": share(c("http_version") == "HTTP/1.0"),
        "h2h3_ratio": share(c("http_version").is_in(["HTTP/2", "HTTP/2.0", "HTTP/3", "HTTP/3.0"])),
        "header_count": c("headers").mean(),
        "modern_browser_score": pl.when(c("header_sec_ch_ua").is_not_null()).then(100)
        .when(c("header_sec_fetch_site").is_not_null()).then(70).otherwise(0).mean(),
        "accept_language_missing": share(c("header_accept_language").is_null()),
        "generic_accept_ratio": share(c("page") & (c("header_accept").fill_null("*/*") == "*/*")),
        "referer_missing_ratio": share(c("header_referer").is_null() & (c("nth") > 1)),
        "cookie_missing_after_first": (~c("has_cookie") & (c("nth") > 1)).sum() / pl.max_horizontal(n - 1, pl.lit(1)),
        "sec_fetch_absence_rate": share(c("header_sec_fetch_mode").is_null()), "is_fake_navigation": share(c("fake")),
        "chromium_ratio": share(c("chromium")), "ch_ua_missing_if_chromium": share(c("no_hints")),
        "ua_ch_mismatch": share(c("other_hints")), "uas_distinct": agents,
        "http_library_ratio": share(c("library")), "automation_ua_ratio": share(c("automation")),
        "has_xff": c("header_x_forwarded_for").is_not_null().any(), "orphan_ratio": share(c("correlated") == 0),
        "transport_seen": share(seen),
        "alpn_http_mismatch": of_seen(c("plain_h1")), "sni_host_mismatch": of_seen(c("other_host")),
        "sni_missing": ratio(c("connection").filter(c("no_sni") & seen).n_unique(), known),
        "tls12_or_lower": ratio(c("connection").filter(c("old_tls") & seen).n_unique(), known),
        "chromium_tls_mismatch": of_seen(c("other_tls")), "ttl_os_mismatch": of_seen(c("other_ttl")),
        "ip_id_zero_ratio": of_seen((c("ip_meta_id") == 0) & ~c("src_ip").str.contains(":", literal=True)),
        "window_mss_ratio": (c("tcp_meta_window_size") / c("tcp_meta_mss")).filter(first).mean(),
        "syn_to_ch_cv": ratio(syn.std(ddof=0), syn.mean()),
    }


def features(correlated: pl.LazyFrame) -> pl.LazyFrame:
    """One row a group and hour."""
    rows = (
        correlated.with_columns(window_start=c("a_timestamp") // HOUR * HOUR)
        .with_columns(gap_ms=(c("a_timestamp") - c("a_timestamp").shift(1)).over(KEY) / 1e6,
                      nth=pl.int_range(1, pl.len() + 1).over(KEY))
        .with_columns(prev_gap_ms=c("gap_ms").shift(1).over(KEY))
        .with_columns(**by_row())
    )
    groups = rows.group_by(KEY).agg(**by_group())
    scale = {"iat_entropy": ("gap_bin", 1.0), "temporal_entropy": ("minute", 1 / math.log2(60)),
             "path_entropy": ("path", 1.0)}
    for name, (of, factor) in scale.items():
        counts = rows.filter(c(of).is_not_null()).group_by(*KEY, of).agg(count=pl.len())
        total = c("count").sum()
        bits = (total.log(2) - (c("count") * c("count").log(2)).sum() / total) * factor
        groups = groups.join(counts.group_by(KEY).agg(bits.alias(name)), on=KEY, how="left", nulls_equal=True)
    return groups.with_columns(
        path_entropy=c("path_entropy") / pl.max_horizontal(c("hits"), pl.lit(2)).log(2),
        window_start=pl.from_epoch(c("window_start"), time_unit="ns"),
    )


def read(file: Path, keys: dict[str, str]) -> pl.LazyFrame:
    """A file's lines, with the engine's column names."""
    schema = {key: TYPES[kind] for key, kind in keys.items()}
    return pl.scan_ndjson(file, schema=schema).select(c(key).alias(column(key)) for key in keys)


def main() -> None:
    """Does the whole job; prints its speed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("input", type=Path)
    options.add_argument("output", type=Path)
    given = options.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    correlated = correlate(given.input).collect()
    correlated.write_ndjson(given.output / "correlated.jsonl")
    features(correlated.lazy()).collect().write_ndjson(given.output / "features.jsonl")
    seconds = time.monotonic() - begun
    hellos = read(given.input / "hellos.jsonl", HELLO).select(pl.len()).collect().item()
    events = hellos + correlated.height
    print(f"{events} events in {seconds:.2f} s: {events / seconds:,.0f} events/s; "
          f"{correlated['correlated'].mean():.1%} correlated")


if __name__ == "__main__":
    main()
