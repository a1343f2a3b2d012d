"""A health checker: HEAD and GET /health in turn, a connection for each. Usage: --pause S"""

import argparse
import itertools
import time

from common import SHOP, WWW, Counted, deadline, report

options = argparse.ArgumentParser()
options.add_argument("--pause", type=float, required=True)
given = options.parse_args()

end = deadline()
for method, (host, port) in zip(itertools.cycle(("HEAD", "GET")), itertools.cycle(((WWW, 443), (WWW, 443), (SHOP, 8443)))):
    if time.monotonic() > end:
        break
    check = Counted(host, port)
    check.fetch(method, "/health", {"User-Agent": "example-health/1.4", "Connection": "close"})
    check.close()
    time.sleep(given.pause)
report()
