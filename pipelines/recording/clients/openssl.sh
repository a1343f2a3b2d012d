#!/bin/sh
# openssl s_client. Usage: openssl.sh silent (handshakes only) | http10 (a request typed by hand).
set -eu
case $1 in
silent)
    # With its input at end of file s_client leaves after the handshake.
    for options in '-servername www.example.test' '-tls1_2 -servername www.example.test' '-alpn h2,http/1.1' -noservername; do
        # shellcheck disable=SC2086  # one word or several options
        openssl s_client -connect www.example.test:443 $options -CAfile "$JA4REC_CA" </dev/null >/dev/null 2>&1
        sleep 1
    done
    echo '{"requests":0,"hellos":4}'
    ;;
http10)
    { printf 'GET /about.html HTTP/1.0\r\n'; sleep 0.4; printf 'User-Agent: typed by hand\r\n\r\n'; sleep 0.5; } |
        openssl s_client -connect www.example.test:443 -noservername -CAfile "$JA4REC_CA" -quiet >/dev/null 2>&1
    echo '{"requests":1,"hellos":1}'
    ;;
esac
