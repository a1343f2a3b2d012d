"""A bot of tier T1 or T2: one task with one HTTP program. The plan is JSON in JA4REC_PLAN (see cast.py).

Prints the number of requests that it has sent as its last line.
"""

import itertools
import json
import os
import random
import sys
import time

import tools

TOPICS = ("garden", "kitchen", "workshop", "cycling", "reading", "weather", "travel", "music")
WWW, SHOP = "https://www.example.test", "https://shop.example.test"
ARTICLES = [f"{WWW}/{topic}/{number}.html" for topic in TOPICS for number in (1, 2, 3)]
ITEMS = [f"{SHOP}/shop/item-{number}.html" for number in range(1, 13)]
WORDS = ("lamp", "winter", "garden", "copper", "bread", "bicycle", "paper", "harbour", "letter", "stone")
WEAK = (
    "/wp-login.php",
    "/wp-admin/",
    "/.env",
    "/.git/config",
    "/xmlrpc.php",
    "/phpmyadmin/",
    "/backup.zip",
    "/admin/",
    "/old/",
    "/api/v1/users",
    "/server-status",
    "/config.json",
    "/.aws/credentials",
    "/dump.sql",
    "/test.php",
    "/cgi-bin/status",
    "/login.php",
    "/vendor/phpunit/",
    "/actuator/env",
    "/manager/html",
    "/.svn/entries",
    "/web.config",
    "/api/swagger.json",
    "/debug/pprof/",
    "/shell.php",
    "/setup/",
)

# Seconds between two requests, from and to.
PACES = {"fast": (0.05, 0.4), "medium": (0.8, 2.5), "slow": (4.0, 9.0)}

plan = json.loads(os.environ["JA4REC_PLAN"])
rng = random.Random(plan["seed"])


def some(urls: list[str], count: int) -> list[str]:
    """`count` of the addresses; again from the first when they are used up."""
    return list(itertools.islice(itertools.cycle(rng.sample(urls, len(urls))), count))


def scrape():
    """Every page once, then again."""
    for url in some(ARTICLES + ITEMS, plan["count"]):
        yield "GET", url, None


def crawl():
    """robots.txt, the site map, then pages."""
    yield "GET", WWW + "/robots.txt", None
    yield "GET", WWW + "/sitemap.xml", None
    yield "GET", WWW + "/", None
    for url in some(ARTICLES, plan["count"]):
        yield "GET", url, None


def prices():
    """The same few items again and again."""
    watched = rng.sample(ITEMS, 4)
    for number in range(plan["count"]):
        yield "GET", watched[number % len(watched)], None


def search():
    """Results for one word after another."""
    for number in range(plan["count"]):
        yield "GET", f"{WWW}/search?q={rng.choice(WORDS)}+{rng.choice(WORDS)}&page={number % 4 + 1}", None


def stuffing():
    """Pairs of user and password at the login form."""
    for _ in range(plan["count"]):
        if rng.random() < 0.3:
            yield "GET", WWW + "/login.html", None
        yield "POST", WWW + "/login", f"user=user{rng.randrange(10**6)}%40mail.test&password={rng.getrandbits(48):x}"


def scanner():
    """Weak spots and forgotten files."""
    for path in rng.sample(WEAK, min(plan["count"], len(WEAK))):
        yield "GET", WWW + path, None


def links():
    """A link checker: HEAD for every page."""
    for url in some(ARTICLES + ITEMS, plan["count"]):
        yield "HEAD", url, None


def poll():
    """One address of the API."""
    for _ in range(plan["count"]):
        yield "GET", WWW + "/api/status", None


def cart():
    """Puts items into the cart as soon as they are there."""
    wanted = rng.choice(ITEMS)
    for _ in range(plan["count"]):
        yield "GET", wanted, None
        yield "POST", SHOP + "/api/cart", f"item={wanted.rsplit('/', 1)[1]}&count=9"


def visit():
    """A few pages, and away: what is left of a scraper that is spread over many addresses."""
    yield "GET", WWW + "/", None
    for url in some(ARTICLES + ITEMS, plan["count"]):
        yield "GET", url, None


def main() -> None:
    task = {one.__name__: one for one in (scrape, crawl, prices, search, stuffing, scanner, links, poll, cart, visit)}[
        plan["task"]
    ]
    plan["proxy"] = os.environ.get("JA4REC_PROXY")
    fetch = tools.make(plan)
    low, high = PACES[plan["pace"]]
    end = time.monotonic() + plan["seconds"]
    sent = failed = 0
    for method, url, body in task():
        if time.monotonic() > end:
            break
        # A client behind changing addresses comes back as another one.
        if plan.get("renew") and sent % 3 == 2:
            fetch = tools.make(plan)
        sent += 1
        try:
            failed += fetch(method, url, body) == 0
        except Exception as error:  # each library has its own; a bot goes on
            failed += 1
            print(f"{plan['tool']}: {url}: {error!r}"[:500], file=sys.stderr)
        time.sleep(rng.uniform(low, high))
    getattr(fetch, "close", lambda: None)()
    print(json.dumps({"requests": sent, "failed": failed}))


if __name__ == "__main__":
    main()
