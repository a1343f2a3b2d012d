"""A scraper that calls itself Chrome on Windows. Usage: --pages N USER_AGENT"""

import argparse
import itertools
import os

import requests

from common import ARTICLES, ITEMS, SHOP, WWW, pause, report, rng

options = argparse.ArgumentParser()
options.add_argument("--pages", type=int, required=True)
options.add_argument("user_agent")
given = options.parse_args()

session = requests.Session()
session.verify = os.environ["JA4REC_CA"]
session.headers.update({
    "User-Agent": given.user_agent,
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.9",
})

pages = itertools.cycle([f"https://{WWW}{path}" for path in ARTICLES] + [f"https://{SHOP}{path}" for path in ITEMS])
for number, url in enumerate(itertools.islice(pages, given.pages)):
    if number % 12 == 11:
        url = f"https://{WWW}/search?q={rng.choice(ARTICLES)[1:4]}&page={number}"
    session.get(url, timeout=30).raise_for_status()
    pause(0.1, 0.5)

pools = session.adapters["https://"].poolmanager.pools
hellos = sum(pools[key].num_connections for key in pools.keys())
report(requests=given.pages, hellos=hellos)
