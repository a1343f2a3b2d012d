"""The columns of the benchmark's input, by JSON key: column name and DuckDB type. What both baselines read."""

HEADERS = (
    "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "X-Request-Id", "X-Trace-Id",
    "X-Forwarded-For", "Referer", "Sec-CH-UA", "Sec-CH-UA-Mobile", "Sec-CH-UA-Platform", "Sec-Fetch-Dest",
    "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User",
)
REQUEST = {
    "timestamp": "BIGINT", "src_ip": "VARCHAR", "src_port": "USMALLINT", "dst_ip": "VARCHAR", "dst_port": "USMALLINT",
    "method": "VARCHAR", "scheme": "VARCHAR", "host": "VARCHAR", "path": "VARCHAR", "query": "VARCHAR",
    "http_version": "VARCHAR", "status_code": "USMALLINT", "response_size": "UBIGINT", "duration_ms": "UBIGINT",
    "has_cookie": "BOOLEAN", **{f"header_{name}": "VARCHAR" for name in HEADERS},
}
HELLO = {
    "timestamp": "BIGINT", "sensor_id": "VARCHAR", "src_ip": "VARCHAR", "src_port": "USMALLINT", "conn_id": "VARCHAR",
    "ip_meta_ttl": "UTINYINT", "ip_meta_total_length": "USMALLINT", "ip_meta_id": "USMALLINT",
    "ip_meta_df": "BOOLEAN", "tcp_meta_window_size": "USMALLINT", "tcp_meta_mss": "USMALLINT",
    "tcp_meta_window_scale": "UTINYINT", "tcp_meta_options": "VARCHAR", "syn_to_clienthello_ms": "DOUBLE",
    "tls_version": "VARCHAR", "tls_sni": "VARCHAR", "tls_alpn": "VARCHAR", "ja4": "VARCHAR", "ja3": "VARCHAR",
    "ja3_hash": "VARCHAR",
}
KEY = ("window_start", "host", "src_ip", "ja4")
HOUR = 3_600_000_000_000


def column(key: str) -> str:
    """The column of a JSON key: `header_User-Agent` is `header_user_agent`."""
    return key.lower().replace("-", "_")
