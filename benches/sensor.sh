#!/bin/bash
# How fast does `ja4-engine fingerprint` find hellos in a file, in how much memory, and how many instructions does one take?
#
#   ENGINE=target/release/ja4-engine benches/sensor.sh
#
# Generates the captures once (benches/data/packets.py), runs each case RUNS times (5), prints every run: megabytes (10^6 bytes) of
# the capture a second by the wall clock and of CPU, and the peak resident set. Then instructions in user space, by `perf stat` or, where
# the machine has no counter for that, by valgrind: the difference of two captures of different length, so that the start does not count.
set -euo pipefail
cd "$(dirname "$0")/.."

ENGINE=${ENGINE:-target/release/ja4-engine}
RUNS=${RUNS:-5}
DATA=${DATA:-/tmp/ja4-bench}
CPU=${CPU:-0}
mkdir -p "$DATA"

make_capture() { # KIND N
    local file=$DATA/$1-$2.pcap
    [ -s "$file" ] || { python3 benches/data/packets.py "$1" "$file.new" "$2" && mv "$file.new" "$file"; }
    cat "$file" >/dev/null
    echo "$file"
}

measure() { # NAME FILE ARGUMENTS...
    local name=$1 file=$2 size seconds
    shift 2
    size=$(stat --format %s "$file")
    for run in $(seq "$RUNS"); do
        python3 - "$name" "$run" "$size" taskset --cpu-list "$CPU" "$ENGINE" fingerprint "$@" "$file" <<'PYTHON'
import os, resource, subprocess, sys, time
name, run, size, *command = sys.argv[1:]
with open(os.devnull, "wb") as null:
    begin = time.perf_counter()
    subprocess.run(command, stdout=null, check=True)
    wall = time.perf_counter() - begin
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu, megabytes = used.ru_utime + used.ru_stime, int(size) / 1e6
print(f"{name:<24} run {run}: {megabytes / wall:7.0f} MB/s by the clock ({wall:.3f} s), {megabytes / cpu:7.0f} MB/s of CPU "
      f"({used.ru_utime:.3f} + {used.ru_stime:.3f} s), {used.ru_maxrss / 1024:6.1f} MiB at most")
PYTHON
    done
}

instructions() { # FILE
    local counted
    counted=$(perf stat --field-separator , --event instructions:u -- "$ENGINE" fingerprint "$1" 2>&1 >/dev/null | awk -F, '/instructions/ { print $1 }') || true
    if ! [[ $counted =~ ^[0-9]+$ ]]; then
        counted=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null \
            "$ENGINE" fingerprint "$1" 2>&1 >/dev/null | awk '/Collected/ { print $4 }')
    fi
    echo "$counted"
}

per() { # WHAT KIND SMALL LARGE
    local small large
    small=$(instructions "$(make_capture "$2" "$3")")
    large=$(instructions "$(make_capture "$2" "$4")")
    echo "instructions per $1: $(( (large - small) / ($4 - $3) ))"
}

uptime
mix=$(make_capture mix 31370)
measure "all fields" "$mix"
measure "four fields" "$mix" --fields src_ip,src_port,ja4,tls_sni
measure "flood of SYNs" "$(make_capture syns 10000000)" --fields tls_sni
measure "flood of hellos" "$(make_capture hellos 1000000)" --fields tls_sni
measure "flood of QUIC Initials" "$(make_capture initials 1000000)" --fields tls_sni
per "hello of two segments, with the server's answer" mix 2000 4000
per "non-TLS packet" plain 50000 100000
uptime
