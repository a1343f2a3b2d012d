"""A polite crawler: reads robots.txt, then one page every few seconds. Usage: --pause S"""

import argparse
import itertools
import time

from common import ARTICLES, ITEMS, WWW, Counted, deadline, report

options = argparse.ArgumentParser()
options.add_argument("--pause", type=float, required=True)
given = options.parse_args()

HEADERS = {
    "User-Agent": "ExampleBot/1.0 (+https://www.example.test/about.html)",
    "Accept": "text/html,application/xml;q=0.9",
    "Accept-Encoding": "identity",
    "From": "bot@example.test",
}

end = deadline()
bot = Counted(WWW)
bot.fetch("GET", "/robots.txt", HEADERS)
bot.fetch("GET", "/sitemap.xml", HEADERS)
for number, path in enumerate(itertools.cycle(["/", "/about.html", *ARTICLES, *ITEMS])):
    if time.monotonic() + given.pause > end:
        break
    time.sleep(given.pause)
    # A new connection now and then, as crawlers that are scheduled in batches have.
    if number % 8 == 7:
        bot.close()
    bot.fetch("GET", path, HEADERS)
bot.close()
report()
