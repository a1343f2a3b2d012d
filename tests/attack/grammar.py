"""Statements out of the functions that are allowed, seeded. Most have the right types; some have not."""

import random
from collections.abc import Iterator

NUMBER, TEXT, TRUTH, TIME = "number", "text", "truth", "time"

COLUMNS = {
    NUMBER: ("status_code", "src_port", "seq", "status_code"), TEXT: ("host", "path", "method", "src_ip", "header_user_agent"),
    TRUTH: ("has_cookie", "status_code > 202"), TIME: ("time",),
}
LITERALS = {
    NUMBER: ("0", "1", "-1", "2.5", "1e308", "9223372036854775807", "null"), TEXT: ("''", "'a'", "'/p/1'", "'\u202e\u0301'", "null"),
    TRUTH: ("true", "false", "null"), TIME: ("now()", "timestamp '2026-01-01 00:00:00'", "to_timestamp(0)"),
}
# What each takes; the first is what it gives.
FUNCTIONS = [
    (NUMBER, "abs", (NUMBER,)), (NUMBER, "ceil", (NUMBER,)), (NUMBER, "round", (NUMBER,)), (NUMBER, "sqrt", (NUMBER,)),
    (NUMBER, "ln", (NUMBER,)), (NUMBER, "exp", (NUMBER,)), (NUMBER, "power", (NUMBER, NUMBER)), (NUMBER, "atan2", (NUMBER, NUMBER)),
    (NUMBER, "greatest", (NUMBER, NUMBER, NUMBER)), (NUMBER, "nullif", (NUMBER, NUMBER)), (NUMBER, "log", (NUMBER, NUMBER)),
    (NUMBER, "length", (TEXT,)), (NUMBER, "octet_length", (TEXT,)), (NUMBER, "strpos", (TEXT, TEXT)), (NUMBER, "ascii", (TEXT,)),
    (NUMBER, "regexp_count", (TEXT, TEXT)), (NUMBER, "date_part('hour', {0})", (TIME,)), (NUMBER, "to_unixtime", (TIME,)),
    (NUMBER, "find_in_set", (TEXT, TEXT)), (NUMBER, "cast({0} as bigint)", (NUMBER,)), (NUMBER, "cast({0} as double)", (TEXT,)),
    (TEXT, "lower", (TEXT,)), (TEXT, "upper", (TEXT,)), (TEXT, "trim", (TEXT,)), (TEXT, "reverse", (TEXT,)), (TEXT, "initcap", (TEXT,)),
    (TEXT, "left({0}, 5)", (TEXT,)), (TEXT, "right({0}, 5)", (TEXT,)), (TEXT, "substr({0}, 2, 4)", (TEXT,)), (TEXT, "concat", (TEXT, TEXT)),
    (TEXT, "split_part({0}, '/', 2)", (TEXT,)), (TEXT, "coalesce", (TEXT, TEXT)), (TEXT, "to_hex", (NUMBER,)), (TEXT, "chr", (NUMBER,)),
    (TEXT, "regexp_replace({0}, '[0-9]+', 'n')", (TEXT,)), (TEXT, "translate({0}, 'ab', 'c')", (TEXT,)), (TEXT, "cast({0} as varchar)", (NUMBER,)),
    (TEXT, "substr_index({0}, '.', 1)", (TEXT,)), (TEXT, "left({0}, {1})", (TEXT, NUMBER)), (TEXT, "substr({0}, {1})", (TEXT, NUMBER)),
    (TRUTH, "starts_with", (TEXT, TEXT)), (TRUTH, "contains", (TEXT, TEXT)), (TRUTH, "({0} like '%1%')", (TEXT,)), (TRUTH, "({0} ~ '^/p/[0-9]+$')", (TEXT,)),
    (TRUTH, "not {0}", (TRUTH,)), (TRUTH, "({0} is null)", (NUMBER,)), (TRUTH, "isnan", (NUMBER,)), (TRUTH, "({0} in (1, 200, 202))", (NUMBER,)),
    (TRUTH, "({0} between {1} and {2})", (NUMBER, NUMBER, NUMBER)), (TRUTH, "({0} like {1})", (TEXT, TEXT)), (TRUTH, "regexp_like", (TEXT, TEXT)),
    (TIME, "date_trunc('minute', {0})", (TIME,)), (TIME, "date_bin(interval '1 minute', {0})", (TIME,)), (TIME, "({0} + interval '1 day')", (TIME,)),
    (TIME, "to_timestamp", (NUMBER,)), (TIME, "to_timestamp_millis", (NUMBER,)),
]
BINARY = {
    NUMBER: ("+", "-", "*", "/", "%", "&", "<<"), TEXT: ("||",), TRUTH: ("and", "or"), TIME: (),
}
COMPARE = ("=", "<>", "<", ">=", "is distinct from")
AGGREGATES = [
    ("count", NUMBER), ("count", TEXT), ("sum", NUMBER), ("avg", NUMBER), ("min", TEXT), ("max", NUMBER), ("max", TIME), ("stddev", NUMBER),
    ("var_pop", NUMBER), ("median", NUMBER), ("approx_distinct", TEXT), ("approx_median", NUMBER), ("bool_and", TRUTH), ("first_value", TEXT),
    ("last_value", NUMBER), ("bit_xor", NUMBER), ("approx_percentile_cont(0.9)", NUMBER), ("array_agg", TEXT), ("string_agg", TEXT),
]
WINDOWS = ("row_number()", "rank()", "dense_rank()", "percent_rank()", "ntile(4)", "lag({0})", "lead({0}, 2)", "sum({0})", "first_value({0})")
TYPES = (NUMBER, NUMBER, TEXT, TEXT, TRUTH, TIME)
WRONG = 0.02


class Grammar:
    """A stream of statements; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def statements(self, count: int) -> Iterator[str]:
        """So many."""
        for _ in range(count):
            yield self.query(3)

    def query(self, depth: int) -> str:
        """A SELECT, or two of them."""
        pick = self.random
        source = self.source(depth)
        where = f" where {self.value(TRUTH, depth)}" if pick.random() < 0.5 else ""
        if pick.random() < 0.5:
            keys = [self.value(pick.choice((NUMBER, TEXT)), 1) for _ in range(pick.randint(1, 3))]
            made = [self.aggregate(depth) for _ in range(pick.randint(1, 4))]
            numbers = ", ".join(str(n + 1) for n in range(len(keys)))
            having = f" having {self.aggregate(1)} is not null" if pick.random() < 0.2 else ""
            text = f"select {', '.join(keys + made)} from {source}{where} group by {numbers}{having}"
        else:
            made = [self.window(depth) if pick.random() < 0.2 else self.any(depth) for _ in range(pick.randint(1, 5))]
            distinct = "distinct " if pick.random() < 0.2 else ""
            text = f"select {distinct}{', '.join(made)} from {source}{where}"
        if pick.random() < 0.4:
            text += f" order by 1 {pick.choice(('asc', 'desc', 'desc nulls last'))}"
        if pick.random() < 0.6:
            text += f" limit {pick.choice((0, 1, 10, 1000, 10**6, 10**12))}"
        if depth > 1 and pick.random() < 0.08:
            one, other = self.any(1), self.any(1)
            join = pick.choice(("union all", "union", "intersect", "except"))
            text = f"select {one} from requests {join} select {one if pick.random() < 0.8 else other} from requests limit 50"
        return text

    def source(self, depth: int) -> str:
        """What is read."""
        kind = self.random.random()
        if kind < 0.7 or depth <= 1:
            return "requests"
        if kind < 0.82:
            return f"(select * from requests where {self.value(TRUTH, 1)} limit {self.random.choice((10, 500))}) requests"
        if kind < 0.95:
            return "requests join (select host h, count(*) n from requests group by host) g on requests.host = g.h"
        return "requests cross join (select path p2 from requests limit 20) g"

    def any(self, depth: int) -> str:
        """A value of any type."""
        return self.value(self.random.choice(TYPES), depth)

    def value(self, of: str, depth: int) -> str:
        """A value of a type; of another one now and then."""
        pick = self.random
        if pick.random() < WRONG:
            of = pick.choice(TYPES)
        kind = pick.random()
        if depth <= 0 or kind < 0.3:
            return pick.choice(COLUMNS[of]) if pick.random() < 0.7 else pick.choice(LITERALS[of])
        if kind < 0.42 and BINARY[of]:
            return f"({self.value(of, depth - 1)} {pick.choice(BINARY[of])} {self.value(of, depth - 1)})"
        if kind < 0.5:
            return f"case when {self.value(TRUTH, depth - 1)} then {self.value(of, depth - 1)} else {self.value(of, depth - 1)} end"
        if kind < 0.6 and of == TRUTH:
            other = pick.choice(TYPES)
            return f"({self.value(other, depth - 1)} {pick.choice(COMPARE)} {self.value(other, depth - 1)})"
        _, name, takes = pick.choice([function for function in FUNCTIONS if function[0] == of])
        arguments = [self.value(taken, depth - 1) for taken in takes]
        return name.format(*arguments) if "{" in name else f"{name}({', '.join(arguments)})"

    def aggregate(self, depth: int) -> str:
        """Over a group."""
        pick = self.random
        name, takes = pick.choice(AGGREGATES)
        value = self.value(takes, depth - 1)
        distinct = "distinct " if pick.random() < 0.15 and name in ("count", "sum") else ""
        if name.startswith("approx_percentile"):
            return f"approx_percentile_cont(0.9) within group (order by {value})"
        separator = ", ','" if name == "string_agg" else ""
        keep = f" filter (where {self.value(TRUTH, 1)})" if pick.random() < 0.2 else ""
        return f"{name}({distinct}{value}{separator}){keep}"

    def window(self, depth: int) -> str:
        """Over a window."""
        pick = self.random
        call = pick.choice(WINDOWS).format(self.value(NUMBER, depth - 1))
        partition = f"partition by {self.value(TEXT, 0)} " if pick.random() < 0.7 else ""
        return f"{call} over ({partition}order by {self.value(NUMBER, 0)})"
