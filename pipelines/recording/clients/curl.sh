#!/bin/sh
# curl with the HTTP version given as its option (--http1.1 or --http2): single calls, one call with several
# URLs on one connection, a HEAD, a POST, a redirect, the second port. Counts by curl's own write-out.
set -eu
www=https://www.example.test shop=https://shop.example.test

call() {
    curl "$http" --silent --show-error --cacert "$JA4REC_CA" --output /dev/null \
        --write-out 'took %{num_connects} %{num_redirects}\n' "$@"
    sleep 0.7
}

http=$1
{
    call $www/
    call $www/garden/1.html -o /dev/null $www/garden/2.html -o /dev/null $www/kitchen/1.html -o /dev/null $www/none.html
    call --head $www/about.html
    call --data 'user=reader&password=mistyped' $www/login
    call --location $www/articles/music/1.html
    call $shop:8443/shop/ -o /dev/null $shop:8443/shop/item-3.html
    call --compressed -H 'X-Request-Id: 5f0c-1' -H 'Cookie: theme=dark' "$www/search?q=a%20%22quoted%22%20word&page=2"
} | awk '/^took/ { hellos += $2; requests += 1 + $3 } END { printf "{\"requests\":%d,\"hellos\":%d}\n", requests, hellos }'
