"""Credential stuffing: tries pairs of user and password at the login form. Usage: --attempts N"""

import argparse
from urllib.parse import urlencode

from common import WWW, Counted, pause, report, rng

options = argparse.ArgumentParser()
options.add_argument("--attempts", type=int, required=True)
given = options.parse_args()

HEADERS = {"User-Agent": "okhttp/4.12.0", "Accept-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}

login = Counted(WWW)
for number in range(given.attempts):
    pair = {"user": f"user{rng.randrange(10**6)}@example.test", "password": f"{rng.getrandbits(48):x}"}
    status = login.fetch("POST", "/login", HEADERS, urlencode(pair))
    if status != 401:
        raise SystemExit(f"expected 401, got {status}")
    # A new connection every few attempts, to get round limits per connection.
    if number % 5 == 4:
        login.close()
    pause(0.2, 1.2)
login.close()
report()
