#!/usr/bin/env bash
# Measures pipelines/correlate.yaml on generated input, release profile: events/s and peak memory by number of workers.
#
# Usage: [SCALE=1.0] [WORKERS="1 2"] [RUNS=3] [BENCH_DIR=target/bench] benches/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."

scale=${SCALE:-1.0} workers=${WORKERS:-1 2} runs=${RUNS:-3}
target=${CARGO_TARGET_DIR:-$PWD/target}
directory=$(realpath --canonicalize-missing "${BENCH_DIR:-$target/bench}")
input=$directory/input-$scale

cargo build --locked --workspace --bins --release
if [ ! -f "$input/complete" ]; then
    rm -rf "$input"
    mkdir -p "$input"
    python3 benches/data/generate.py "$input" --scale "$scale"
    touch "$input/complete"
fi
events=$(cat "$input/hellos.jsonl" "$input/requests.jsonl" | wc --lines)
bytes=$(cat "$input/hellos.jsonl" "$input/requests.jsonl" | wc --bytes)

printf '%s, %s processors, Linux %s, %s\n' "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
    "$(uname -r)" "$(git describe --always --dirty)"
printf '%s events, %s bytes; load average before: %s\n' "$events" "$bytes" "$(cut -d' ' -f1 /proc/loadavg)"
printf '%8s %4s %8s %8s %10s %9s\n' workers run 'wall s' 'CPU s' events/s 'RSS MB'
export HELLOS=$input/hellos.jsonl REQUESTS=$input/requests.jsonl OUT=$directory/out
for count in $workers; do
    for run in $(seq "$runs"); do
        rm -rf "$OUT"
        /usr/bin/time --output="$directory/time" --format='%e %U %S %M' \
            "$target/release/ja4-engine" run --quiet --workers "$count" pipelines/correlate.yaml
        read -r wall user system rss < "$directory/time"
        awk -v w="$count" -v r="$run" -v e="$events" -v t="$wall" -v u="$user" -v s="$system" -v m="$rss" \
            'BEGIN { printf "%8d %4d %8.2f %8.2f %10.0f %9.0f\n", w, r, t, u + s, e / t, m * 1024 / 1e6 }'
    done
done
