#!/usr/bin/env bash
# Question: what does the spool cost? The same job with `spool: off` and with the default, in turn: hellos and requests as
# JSON lines through two named pipes, which are live sources and thus spooled, into the join (and the features) and files.
#
# Usage: [ENGINE=target/debug/ja4-engine] [INPUT=DIRECTORY] [RUNS=3] [FEATURES="no yes"] benches/live/spool_cost.sh
#
# INPUT is what benches/data/generate.py wrote; it is generated at scale 1 if there is none. For each run: wall and CPU time,
# peak RSS, and what `spool ls` says halfway: rows and bytes of both logs. At the end: the ratios of the medians.
set -euo pipefail
cd "$(dirname "$0")/../.."

engine=$(realpath "${ENGINE:-target/debug/ja4-engine}") runs=${RUNS:-3} features=${FEATURES:-no yes}
input=$(realpath --canonicalize-missing "${INPUT:-target/bench/input-1.0}")
[ -f "$input/requests.jsonl" ] || python3 benches/data/generate.py "$input"
here=$(mktemp --directory)
trap 'rm -rf "$here"' EXIT
mkfifo "$here/hellos" "$here/requests"
export HELLOS=$here/hellos REQUESTS=$here/requests OUT=$here/out

# The pipeline of `make bench`, which needs its folder for the features' file; without them: without the last nodes.
pipeline() { # FEATURES SPOOL
    printf 'data_dir: %s/data\n' "$here"
    [ "$2" = off ] && printf 'spool: off\n'
    if [ "$1" = yes ]; then
        sed "s|features/standard.yaml|$PWD/pipelines/features/standard.yaml|" pipelines/correlate.yaml
    else
        sed '/id: features$/,/features:/d; /features_file/d' pipelines/correlate.yaml
    fi
}

rows_and_bytes() { # The spool's, as JSON from `spool ls`; nothing if there is none
    { "$engine" spool ls --json "$here/data/spool" 2>/dev/null || true; } | python3 -c '
import json, sys
logs = [json.loads(line) for line in sys.stdin if line.strip()]
rows, size = sum(log["rows"] for log in logs), sum(log["bytes"] for log in logs)
print(f"{rows} rows, {size} bytes, {size / rows:.0f} a row" if rows else "none")'
}

printf '%s, %s processors, Linux %s, %s\n' "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
    "$(uname -r)" "$(date --utc +%FT%TZ)"
cat "$input"/*.jsonl | wc --lines --bytes | awk '{ printf "%d events, %d bytes\n", $1, $2 }'
printf '%8s %6s %4s %8s %8s %8s %6s  %s\n' features spool run 'wall s' 'CPU s' 'RSS MB' load 'spool halfway'
for with in $features; do
    : > "$here/figures"
    for run in $(seq "$runs"); do
        for spool in off on; do
            rm -rf "$here/data" "$OUT"
            pipeline "$with" "$spool" > "$here/pipeline.yaml"
            cat "$input/hellos.jsonl" > "$HELLOS" & cat "$input/requests.jsonl" > "$REQUESTS" &
            load=$(cut -d' ' -f1 /proc/loadavg)
            { sleep 6; rows_and_bytes > "$here/spool"; } &
            /usr/bin/time --output="$here/time" --format='%e %U %S %M' "$engine" run --quiet "$here/pipeline.yaml"
            wait
            [ "$(wc --lines < "$OUT/correlated.jsonl")" = "$(wc --lines < "$input/requests.jsonl")" ]
            read -r wall user system rss < "$here/time"
            cpu=$(awk -v u="$user" -v s="$system" 'BEGIN { printf "%.2f", u + s }')
            echo "$spool $wall $cpu" >> "$here/figures"
            printf '%8s %6s %4d %8.2f %8.2f %8.0f %6s  %s\n' "$with" "$spool" "$run" "$wall" "$cpu" $((rss / 1000)) \
                "$load" "$(cat "$here/spool")"
        done
    done
    python3 - "$here/figures" "$with" <<'PYTHON'
import statistics, sys
rows = [line.split() for line in open(sys.argv[1])]
median = {(s, n): statistics.median(float(r[n]) for r in rows if r[0] == s) for s in ("off", "on") for n in (1, 2)}
print(f"features {sys.argv[2]}: with the spool {median['on', 1] / median['off', 1]:.2f} times the wall time, "
      f"{median['on', 2] / median['off', 2]:.2f} times the CPU time (medians)")
PYTHON
done
