"""Python requests as a script uses it: a session over some pages, then calls without a session."""

import os

import requests

from common import ARTICLES, SHOP, WWW, pause, report, rng

ca = os.environ["JA4REC_CA"]
sent = 0
with requests.Session() as session:
    session.verify = ca
    for path in rng.sample(ARTICLES, 10):
        session.get(f"https://{WWW}{path}", timeout=30).raise_for_status()
        sent += 1
        pause(0.3, 1.5)
    pools = session.adapters["https://"].poolmanager.pools
    hellos = sum(pools[key].num_connections for key in pools.keys())
for url in (f"https://{SHOP}:8443/shop/", f"https://{WWW}/search?q=lamp", f"https://{WWW}/api/status"):
    requests.get(url, verify=ca, timeout=30, auth=("reader", "not-a-secret")).raise_for_status()
    sent, hellos = sent + 1, hellos + 1
    pause(0.5, 1.0)
report(requests=sent, hellos=hellos)
