"""Question: how fast is the engine's job as one batch in DuckDB, JSON lines on disk to JSON lines on disk?

The features are those of pipelines/features/standard.yaml, the same expressions. Differs from the engine: everything
is read before anything is written, no row is ever late, a hello never comes after its request (the engine tolerates
500 ms), and a request whose latest hello has expired does not look for an earlier one.

Usage: /usr/bin/time -v python3 duckdb_job.py INPUT_DIRECTORY OUTPUT_DIRECTORY [--threads 2]
"""

import argparse
import re
import time
from pathlib import Path

import duckdb
import yaml

from columns import HELLO, HOUR, REQUEST, column

LIBRARY = Path(__file__).parents[2] / "pipelines/features/standard.yaml"

# What the expressions call and DuckDB names otherwise.
MACROS = (
    "create macro regexp_like(text, pattern) as regexp_matches(text, pattern)",
    "create macro character_length(text) as length(text)",
)
# The latest hello before each request; alive while no gap on its connection was longer than allowed: 10 s up to the
# first request, 120 s between requests.
CORRELATED = """
create table correlated as
with matched as (
  select r.*, h.* exclude (src_ip, src_port, timestamp), h.timestamp as hello_t
  from requests r asof left join hellos h
    on r.src_ip = h.src_ip and r.src_port = h.src_port and r.timestamp >= h.timestamp
), gaps as (
  select *, case when lag(seq) over c is null then timestamp - hello_t > 10000000000
                 else timestamp - lag(timestamp) over c > 120000000000 end as broken
  from matched
  window c as (partition by src_ip, src_port, hello_t order by timestamp, seq)
), alive as (
  select *, hello_t is not null and not bool_or(broken) over c as hit, row_number() over c as number
  from gaps
  window c as (partition by src_ip, src_port, hello_t order by timestamp, seq
               rows between unbounded preceding and current row)
)
select make_timestamp_ns(timestamp) as time, {request},
  {hello},
  hit::utinyint as correlated, case when hit then '' else 'A' end as orphan_side,
  case when hit then number else 0 end::usmallint as keepalives,
  timestamp as a_timestamp, case when hit then hello_t end as b_timestamp
from alive
"""
GROUPED = """
with gaps as (
  select *, (a_timestamp - lag(a_timestamp) over g) / 1e6 as gap_ms, row_number() over g as nth
  from (select *, a_timestamp // {hour} * {hour} as window_start from correlated)
  window g as (partition by window_start, host, src_ip, ja4 order by a_timestamp, seq)
), pairs as (
  select *, lag(gap_ms) over (partition by window_start, host, src_ip, ja4 order by a_timestamp, seq) as prev_gap_ms
  from gaps
)
select make_timestamp_ns(window_start) as window_start, host, src_ip, ja4,
  {features}
from pairs group by all
"""


def run(source: Path, target: Path, threads: int) -> None:
    """Does the whole job; prints its speed."""
    begun = time.monotonic()
    database = duckdb.connect()
    database.execute(f"set threads = {threads}")
    for macro in MACROS:
        database.execute(macro)
    read(database, "hellos", source / "hellos.jsonl", HELLO)
    read(database, "requests", source / "requests.jsonl", REQUEST)
    hello = [name for name in HELLO if name not in ("timestamp", "src_ip", "src_port")]
    database.execute(CORRELATED.format(
        request=", ".join(["seq", *(column(key) for key in REQUEST if key != "timestamp")]),
        hello=", ".join(f"case when hit then {name} end as {name}" for name in hello),
    ))
    features = ",\n  ".join(f"{expression(f['expr'])} as {f['name']}" for f in yaml.safe_load(LIBRARY.read_text()))
    write(database, "from correlated", target / "correlated.jsonl")
    write(database, GROUPED.format(hour=HOUR, features=features), target / "features.jsonl")
    seconds = time.monotonic() - begun
    events, matched = database.execute(
        "select (select count(*) from hellos) + count(*), avg(correlated) from correlated"
    ).fetchone()
    print(f"{events} events in {seconds:.2f} s: {events / seconds:,.0f} events/s; {matched:.1%} correlated")


def expression(sql: str) -> str:
    """A feature's expression in DuckDB's dialect: a timestamp is no number there."""
    return re.sub(r"cast\((first_seen|last_seen) as bigint\)", r"epoch_ns(\1)", sql)


def read(database: duckdb.DuckDBPyConnection, table: str, file: Path, keys: dict[str, str]) -> None:
    """A table of a file's lines, with their number as `seq`."""
    types = ", ".join(f"'{key}': '{kind}'" for key, kind in keys.items())
    columns = ", ".join(f'"{key}" as {column(key)}' for key in keys)
    database.execute(
        f"create table {table} as select row_number() over () - 1 as seq, {columns} "
        f"from read_json('{file}', format='newline_delimited', columns={{{types}}})"
    )


def write(database: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    """Writes a query's rows as JSON lines."""
    select = query if query.lstrip().startswith(("with", "select")) else f"select * {query}"
    database.execute(f"copy ({select}) to '{file}' (format json)")


def main() -> None:
    """Reads the command line and runs."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("input", type=Path)
    options.add_argument("output", type=Path)
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    run(given.input, given.output, given.threads)


if __name__ == "__main__":
    main()
