#!/bin/sh
# wget fetches two pages with all that they need, then a list. Counts by wget's own messages.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export LC_ALL=C
fetch() {
    wget --ca-certificate="$JA4REC_CA" --no-hsts --wait=0.3 --directory-prefix=. "$@" 2>>log || [ $? -eq 8 ]
}
fetch --page-requisites https://www.example.test/garden/1.html
fetch --recursive --level=1 --accept 'item-*.html' https://shop.example.test:8443/shop/index.html
fetch https://www.example.test/weather/1.html https://www.example.test/missing.html
awk '/^HTTP request sent/ { requests++ } /^Connecting to .* connected\.$/ { hellos++ }
     END { printf "{\"requests\":%d,\"hellos\":%d}\n", requests, hellos }' log
