"""The features, recomputed from the log's lines and the recomputed join: the standard ones in DuckDB, the others in Python.

The formulas are written from their definitions, by other means than pipelines/features/standard.yaml where there is
a choice: window functions for gaps, lists instead of regular expressions, centred products instead of raw ones.

Usage: features.py --pcap CAPTURE --log REQUESTS     one JSON object a line
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import duckdb

from correlate import Joined, iso_nanoseconds, join, requests
from further import further
from hellos import hellos

HEADERS = (
    "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "X-Request-Id", "X-Trace-Id",
    "X-Forwarded-For", "Referer", "Sec-CH-UA", "Sec-CH-UA-Mobile", "Sec-CH-UA-Platform", "Sec-Fetch-Dest",
    "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User",
)
COLUMNS = {
    "t": "BIGINT", "seq": "BIGINT", "src_ip": "VARCHAR", "src_port": "INTEGER", "dst_port": "INTEGER",
    "method": "VARCHAR", "scheme": "VARCHAR", "host": "VARCHAR", "path": "VARCHAR", "query": "VARCHAR",
    "version": "VARCHAR", "status": "INTEGER", "cookie": "BOOLEAN", "ua": "VARCHAR", "accept": "VARCHAR",
    "language": "VARCHAR", "referer": "VARCHAR", "xff": "VARCHAR", "ch_ua": "VARCHAR", "ch_mobile": "VARCHAR",
    "ch_platform": "VARCHAR", "fetch_dest": "VARCHAR", "fetch_mode": "VARCHAR", "fetch_site": "VARCHAR",
    "headers": "INTEGER", "correlated": "INTEGER", "keepalives": "INTEGER", "hello_t": "BIGINT", "ja4": "VARCHAR",
    "sni": "VARCHAR", "alpn": "VARCHAR", "ttl": "INTEGER", "ip_id": "INTEGER", "win": "INTEGER", "mss": "INTEGER", "syn_ms": "DOUBLE",
}
# Of a correlated row as the engine writes it: the column that has each column of `requests`.
WRITTEN = {
    "seq": "seq", "src_ip": "src_ip", "src_port": "src_port", "dst_port": "dst_port", "method": "method",
    "scheme": "scheme", "host": "host", "path": "path", "query": "query", "version": "http_version",
    "status": "status_code", "cookie": "has_cookie", "ua": "header_user_agent", "accept": "header_accept",
    "language": "header_accept_language", "referer": "header_referer", "xff": "header_x_forwarded_for",
    "ch_ua": "header_sec_ch_ua", "ch_mobile": "header_sec_ch_ua_mobile", "ch_platform": "header_sec_ch_ua_platform",
    "fetch_dest": "header_sec_fetch_dest", "fetch_mode": "header_sec_fetch_mode",
    "fetch_site": "header_sec_fetch_site", "correlated": "correlated", "keepalives": "keepalives",
    "hello_t": "b_timestamp", "ja4": "ja4", "sni": "tls_sni", "alpn": "tls_alpn", "ttl": "ip_meta_ttl",
    "ip_id": "ip_meta_id", "win": "tcp_meta_window_size", "mss": "tcp_meta_mss", "syn_ms": "syn_to_clienthello_ms",
    "content_type": "header_content_type", "order": "header_order_signature",
    "duration": "duration_ms",
}

# One row a request with everything that is a property of the row. `conn` names the connection.
ROWS = r"""
create temp table rows as
with gaps as (
  select *, t // 3600000000000 * 3600000000000 as window_start,
    (t - lag(t) over g) / 1e6 as gap, row_number() over g as i
  from requests
  window g as (partition by t // 3600000000000, host, src_ip, ja4 order by t, seq)
), pairs as (
  select *, lag(gap) over (partition by window_start, host, src_ip, ja4 order by t, seq) as prev from gaps
)
select *,
  correlated = 1 and xff is null as is_seen,
  t // 60000000000 % 60 as minute,
  src_port::varchar || '@' || coalesce(hello_t::varchar, '') as conn,
  length(path) + length(coalesce(query, '')) as target_length,
  len(string_split(path, '/')) - 1 as depth,
  len(list_filter(range(1, 16), lambda k: 1 + gap >= 1 << k)) as gap_bin,
  regexp_extract(path, '\.([^./]+)$', 1) in ('css','js','mjs','map','png','jpg','jpeg','gif','webp','avif','svg',
    'ico','bmp','woff','woff2','ttf','otf','eot','mp3','mp4','webm','wasm') as is_asset,
  contains(path, '/') and (not contains(string_split(path, '/')[-1], '.')
    or regexp_extract(path, '\.([^./]+)$', 1) in ('htm','html','xhtml','php','asp','aspx','jsp')) as is_page,
  string_split(string_split(path, '/')[2], '.')[1] in ('health','healthz','healthcheck','health-check','live','livez',
    'ready','readyz','ping','status','heartbeat','up') and starts_with(path, '/') as is_health,
  len(list_filter(['wp-login','wp-admin','wp-config','xmlrpc.php','/.env','/.git','/.svn','/.hg','/.aws','/.ssh',
    '/.ht','/.ds_store','phpmyadmin','/pma/','cgi-bin','/actuator','server-status','etc/passwd','phpunit','/solr/',
    '/manager/html','phpinfo','backup.zip','backup.tar','backup.gz','backup.tgz','dump.zip','dump.tar','dump.gz',
    'dump.tgz'], lambda part: contains(lower(path), part))) > 0
    or len(list_filter(['/pma','.sql','.bak','.old','.swp','.pem','.key'],
      lambda part: ends_with(lower(path), part))) > 0 as is_sensitive,
  method = 'POST' and len(list_filter(string_split(lower(path), '/')[2:],
    lambda part: string_split(part, '.')[1] in ('login','log-in','logon','signin','sign-in','sign_in','auth',
      'authenticate','session','sessions','wp-login'))) > 0 as is_login,
  coalesce(try_cast(regexp_extract(ua, 'Chrom(?:e|ium)/([0-9]+)\.', 1) as integer), 0) >= 89 as is_chromium,
  ua is null or len(list_filter(['curl','wget','python','okhttp','go-http-client','node','undici','axios','java',
    'apache-httpclient','libwww','lwp','ruby','php','guzzle','aiohttp','httpx','scrapy','dart','rust','reqwest','perl',
    'postman','insomnia','powershell'], lambda name: starts_with(lower(ua), name)
      and (length(ua) = length(name) or contains('-/ _.;(', ua[length(name) + 1])))) > 0 as is_library,
  len(list_filter(['headless','phantomjs','selenium','webdriver','puppeteer','playwright','cypress','slimerjs',
    'electron/'], lambda name: contains(lower(coalesce(ua, '')), name))) > 0 as is_automation,
  coalesce(ch_ua, '') <> '' and (
    not contains(ch_ua, '"Chromium";v="' || coalesce(regexp_extract(ua, 'Chrome/([^.]*)', 1), '') || '"')
    or coalesce(map(['Windows', 'macOS', 'Android', 'Linux'],
        [not contains(coalesce(ua, ''), 'Windows'), not contains(coalesce(ua, ''), 'Mac OS X'),
         not contains(coalesce(ua, ''), 'Android'),
         not contains(coalesce(ua, ''), 'Linux') or contains(coalesce(ua, ''), 'Android')])[trim(ch_platform, '"')],
        false)
    or coalesce(ch_mobile in ('?0', '?1') and (ch_mobile = '?1') <> contains(coalesce(ua, ''), 'Mobile'), false)
  ) as is_hint_mismatch,
  case when ttl is null then null when ttl <= 64 then 64 when ttl <= 128 then 128 else 255 end as initial_ttl,
  case when contains(ua, 'Windows NT') then 128
       when len(list_filter(['Linux','Android','Mac OS X','iPhone','iPad','CrOS'], lambda os: contains(ua, os))) > 0
       then 64 end as ua_ttl
from pairs
"""

GROUPS = r"""
with centred as (
  select *, avg(gap) over (partition by window_start, host, src_ip, ja4) as m from rows
)
select window_start, host, src_ip, ja4,
  count(*) as hits,
  min(t) as first_seen,
  max(t) as last_seen,
  count(*) / greatest((max(t) - min(t)) / 1e9, 1) as hit_velocity,
  count(distinct minute) / 60 as active_minutes,
  count(distinct conn) as conn_count,
  count(*) / (count(distinct conn) + 1) as multiplexing_efficiency,
  max(keepalives) as max_keepalives,
  count(distinct src_port) / count(*) as src_port_density,
  case when avg(target_length) > 0 then stddev_pop(target_length) / avg(target_length) end as req_size_cv,
  avg((dst_port not in (80, 443))::int) as non_standard_port_ratio,
  ln(1 + avg(gap)) as iat_mean_log,
  case when avg(gap) > 0 then stddev_pop(gap) / avg(gap) end as iat_cv,
  case when count(gap) > 0 then entropy(gap_bin) filter (gap is not null) end as iat_entropy,
  avg((gap < 100)::int) as iat_burst_ratio,
  avg((gap > 5000)::int) as pause_ratio,
  case when count(gap) < 4 then null when var_pop(gap) <= 1e-4 * any_value(m) ** 2 then 0
    else (avg((gap - m) * (prev - m)) + any_value(m) * avg(gap - m) filter (prev is not null)
      + any_value(m) * avg(prev - m)) / var_pop(gap) end as lag1_autocorrelation,
  entropy(minute) / log2(60) as temporal_entropy,
  count(distinct path) as uniq_paths,
  count(distinct nullif(query, '')) as uniq_query_params,
  count(distinct path) / count(*) as path_diversity_ratio,
  entropy(path) / log2(greatest(count(*), 2)) as path_entropy,
  count(distinct nullif(query, '')) / (count(distinct path) + 1) as fuzzing_index,
  sum(depth) / count(*) as depth_mean,
  var_pop(depth) as url_depth_variance,
  avg(is_asset::int) as asset_ratio,
  avg(is_page::int) as page_ratio,
  max(path = '/robots.txt') as robots_txt,
  avg(coalesce(is_health, false)::int) as health_path_ratio,
  avg(is_sensitive::int) as sensitive_path_ratio,
  avg((method = 'POST')::int) as post_ratio,
  avg((method = 'HEAD')::int) as head_ratio,
  1 - avg((method in ('GET', 'HEAD', 'POST'))::int) as other_method_ratio,
  sum(is_login::int) as login_posts,
  sum((is_login and coalesce(status in (401, 403, 422, 429), false))::int) as login_failures,
  avg(is_login::int) as login_post_concentration,
  avg((coalesce(status, 0) // 100 = 4)::int) as r4xx_ratio,
  count(distinct case when status = 404 then path end) as distinct_404,
  count(distinct case when status = 404 then path end) / count(*) as r404_distinct,
  avg((version = 'HTTP/1.0')::int) as http10_ratio,
  avg(regexp_full_match(version, 'HTTP/[23](\.0)?')::int) as h2h3_ratio,
  avg(headers) as header_count,
  (100 * count(ch_ua) + 70 * count(*) filter (ch_ua is null and fetch_site is not null)) / count(*)
    as modern_browser_score,
  1 - count(language) / count(*) as accept_language_missing,
  avg((is_page and coalesce(accept, '*/*') = '*/*')::int) as generic_accept_ratio,
  sum((referer is null and i > 1)::int) / count(*) as referer_missing_ratio,
  sum((i > 1 and coalesce(not cookie, false))::int) / greatest(count(*) - 1, 1) as cookie_missing_after_first,
  1 - count(fetch_mode) / count(*) as sec_fetch_absence_rate,
  sum((coalesce(fetch_mode, '') = 'navigate' and not coalesce(fetch_dest in ('document', 'iframe', 'frame', 'embed',
    'object'), false))::int) / count(*) as is_fake_navigation,
  avg(is_chromium::int) as chromium_ratio,
  sum((is_chromium and ch_ua is null and scheme <> 'http' and method <> 'OPTIONS' and status is distinct from 101)::int)
    / count(*) as ch_ua_missing_if_chromium,
  avg(is_hint_mismatch::int) as ua_ch_mismatch,
  count(distinct ua) as uas_distinct,
  avg(is_library::int) as http_library_ratio,
  avg(is_automation::int) as automation_ua_ratio,
  count(xff) > 0 as has_xff,
  1 - avg(correlated) as orphan_ratio,
  sum(is_seen::int) / count(*) as transport_seen,
  avg((coalesce(alpn, '') = 'h2' and starts_with(version, 'HTTP/1.'))::int) filter (is_seen) as alpn_http_mismatch,
  avg(coalesce(sni <> '' and host <> '' and lower(sni) <> regexp_replace(lower(host), ':.*', ''), false)::int)
    filter (is_seen) as sni_host_mismatch,
  count(distinct case when is_seen and coalesce(sni, '') = '' then conn end)
    / nullif(count(distinct case when is_seen then conn end), 0) as sni_missing,
  count(distinct case when is_seen and ja4[2:3] <> '13' then conn end)
    / nullif(count(distinct case when is_seen then conn end), 0) as tls12_or_lower,
  avg((is_chromium and status is distinct from 101
    and not (ja4[2:3] = '13' and ja4[9:10] in ('h2', 'h3')))::int) filter (is_seen) as chromium_tls_mismatch,
  avg(coalesce(initial_ttl <> ua_ttl, false)::int) filter (is_seen) as ttl_os_mismatch,
  avg(coalesce(ip_id = 0 and not contains(src_ip, ':'), false)::int) filter (is_seen) as ip_id_zero_ratio,
  avg(win / nullif(mss, 0)) filter (is_seen and keepalives = 1) as window_mss_ratio,
  case when avg(syn_ms) filter (is_seen and keepalives = 1) > 0
    then stddev_pop(syn_ms) filter (is_seen and keepalives = 1)
      / avg(syn_ms) filter (is_seen and keepalives = 1) end as syn_to_ch_cv
from centred
group by window_start, host, src_ip, ja4
order by window_start, host, src_ip, ja4
"""


def features(joined: Iterable[Joined]) -> list[dict]:
    """One row a group and window: its key, `window_start` in nanoseconds, and the features; None for null."""
    return of_rows([flat(row) for row in joined])


def of_rows(rows: list[dict]) -> list[dict]:
    """The same of rows as `flat` gives them."""
    others = further(rows)
    return [group | others[group["window_start"], group["host"], group["src_ip"], group["ja4"]]
            for group in standard(rows)]


def standard(rows: list[dict]) -> list[dict]:
    """The standard features."""
    database = duckdb.connect()
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as raw:
        for row in rows:
            raw.write(json.dumps({name: row[name] for name in COLUMNS}) + "\n")
        raw.flush()
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
        database.execute(
            f"create temp table requests as select * from read_json('{raw.name}', format='newline_delimited', "
            f"columns={{{columns}}}, maximum_object_size=67108864)"
        )
    database.execute(ROWS)
    result = database.execute(GROUPS)
    names = [column[0] for column in result.description]
    return [dict(zip(names, values)) for values in result.fetchall()]


def written(line: dict) -> dict:
    """As `flat`, of a correlated row that the engine has written."""
    row = {name: line.get(column) for name, column in WRITTEN.items()}
    headers = sum(line.get(f"header_{name.lower().replace('-', '_')}") is not None for name in HEADERS)
    return row | {"t": iso_nanoseconds(line["time"]), "headers": headers, "ja4": row["ja4"] or None}


def flat(row: Joined) -> dict:
    """The columns of the table `requests`, from the log's keys."""
    line, hello = row.request.line, row.hello
    return {
        "t": row.request.time, "seq": row.request.seq, "src_ip": row.request.src_ip, "src_port": row.request.src_port,
        "dst_port": line.get("dst_port"), "method": line.get("method"), "scheme": line.get("scheme"),
        "host": line.get("host"), "path": line.get("path"), "query": line.get("query"),
        "version": line.get("http_version"), "status": line.get("status_code"), "cookie": line.get("has_cookie"),
        "ua": line.get("header_User-Agent"), "accept": line.get("header_Accept"),
        "language": line.get("header_Accept-Language"), "referer": line.get("header_Referer"),
        "xff": line.get("header_X-Forwarded-For"), "ch_ua": line.get("header_Sec-CH-UA"),
        "ch_mobile": line.get("header_Sec-CH-UA-Mobile"), "ch_platform": line.get("header_Sec-CH-UA-Platform"),
        "fetch_dest": line.get("header_Sec-Fetch-Dest"), "fetch_mode": line.get("header_Sec-Fetch-Mode"),
        "fetch_site": line.get("header_Sec-Fetch-Site"),
        "headers": sum(line.get(f"header_{name}") is not None for name in HEADERS),
        "correlated": row.correlated, "keepalives": row.keepalives,
        "hello_t": hello and hello.time, "ja4": hello and hello.ja4, "sni": hello and hello.tls_sni, "alpn": hello and hello.tls_alpn,
        "ttl": hello and hello.ip_meta_ttl, "ip_id": hello and hello.ip_meta_id,
        "win": hello and hello.tcp_meta_window_size, "mss": hello and hello.tcp_meta_mss,
        "syn_ms": hello and hello.syn_to_clienthello_ms,
        "content_type": line.get("header_Content-Type"),
        "order": line.get("header_order_signature"), "duration": line.get("duration_ms"),
    }


def main() -> None:
    """Prints the features."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pcap", type=Path, required=True)
    options.add_argument("--log", type=Path, required=True)
    given = options.parse_args()
    for row in features(join(requests(given.log), hellos(given.pcap))):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
