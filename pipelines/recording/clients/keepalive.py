"""Polls an address over one connection that it keeps open. Usage: --requests N --pause S"""

import argparse
import time

from common import WWW, Counted, report

options = argparse.ArgumentParser()
options.add_argument("--requests", type=int, required=True)
options.add_argument("--pause", type=float, required=True)
given = options.parse_args()

poller = Counted(WWW)
for number in range(given.requests):
    poller.fetch("GET", f"/api/status?tick={number}", {"User-Agent": "status-poller/2.1", "Accept": "application/json"})
    time.sleep(given.pause)
poller.close()
report()
