"""Who takes part in the second recording: people and bots of four tiers, drawn anew by each seed.

Tiers (of bots): T1 HTTP libraries; T2 libraries that imitate a browser's TLS and HTTP/2; T3 real browsers that a
program drives; T4 as T3, with a person's pauses and other addresses as it goes.

Addresses, order, tools, tasks, pauses and languages are drawn for people and bots from the same pools, and all say that
they run on Linux, as they do: what tells a bot from a person here can only be how it behaves and how its layers fit.
"""

import ipaddress
import random
from dataclasses import dataclass, field

WWW, SHOP = "https://www.example.test", "https://shop.example.test"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0"
LANGUAGES = ("en-US,en;q=0.9", "fr-FR,fr;q=0.9", "de-DE,de;q=0.9", "en-GB,en;q=0.9", "es-ES,es;q=0.9")

# What a person does next, by weight. Each kind is there at least once.
PEOPLE = {
    "reader": {"habits": {"follow": 6, "back": 1, "home": 1}, "pace": (3.0, 7.0)},
    "shopper": {
        "habits": {"follow": 4, "shop": 2, "back": 2, "buy": 1},
        "pace": (2.0, 5.0),
        "landing": SHOP + "/shop/",
    },
    "searcher": {"habits": {"search": 3, "follow": 3, "back": 1}, "pace": (2.5, 5.0)},
    "tabs": {"habits": {"tabs": 2, "follow": 3, "shop": 1}, "pace": (2.0, 4.0)},
    "bouncer": {"habits": {"follow": 1}, "pace": (4.0, 9.0), "steps": 1},
    "returning": {"habits": {"follow": 4, "back": 1, "shop": 1}, "pace": (2.5, 5.0), "visits": 2},
    "hasty": {"habits": {"follow": 5, "back": 3, "reload": 1}, "pace": (0.8, 1.6)},
    "reloading": {"habits": {"reload": 3, "follow": 1, "shop": 1}, "pace": (2.0, 5.0)},
    "signing-in": {"habits": {"login": 2, "follow": 3, "home": 1}, "pace": (2.0, 4.0)},
    "blocking": {"habits": {"follow": 5, "back": 1, "shop": 1}, "pace": (2.5, 6.0), "block": ("image", "style", "api")},
    "without-scripts": {"habits": {"follow": 5, "back": 1, "shop": 1}, "pace": (2.5, 6.0), "block": ("script",)},
    "private": {"habits": {"follow": 5, "search": 1, "shop": 1}, "pace": (2.5, 6.0), "private": True},
    "deep-link": {"habits": {"follow": 3, "back": 1}, "pace": (3.0, 7.0), "landing": WWW + "/travel/2.html"},
    # Opens links of a letter, one by one, each as if its address had been typed.
    "newsletter": {"habits": {"typed": 1}, "pace": (4.0, 9.0), "steps": 3, "landing": WWW + "/music/1.html"},
    "bookmarks": {
        "habits": {"typed": 3, "follow": 2, "back": 1},
        "pace": (2.0, 5.0),
        "landing": WWW + "/cycling/3.html",
    },
    # From the house to the street: the address changes, what the browser has kept stays.
    "roaming": {"habits": {"follow": 5, "back": 1, "shop": 1}, "pace": (2.0, 4.0), "rotate": 20},
    # Was here before, at another address: no picture, no style, no icon is fetched again.
    "back-elsewhere": {"habits": {"follow": 4, "back": 1, "shop": 1}, "pace": (2.0, 4.0), "visits": 2, "rotate": 26},
}
MORE_PEOPLE = 8
NAT_PEOPLE = (4, 3)
OFFICE_PEOPLE = 4

# Kind, task of bot.py, pace, number of requests.
T1 = (
    ("scraper", "scrape", "fast", 70),
    ("scraper", "scrape", "medium", 30),
    ("crawler", "crawl", "medium", 25),
    ("price watcher", "prices", "slow", 12),
    ("search scraper", "search", "medium", 25),
    ("stuffing", "stuffing", "slow", 12),
    ("stuffing", "stuffing", "medium", 30),
    ("scanner", "scanner", "medium", 26),
    ("link checker", "links", "fast", 36),
    ("api poller", "poll", "medium", 40),
    ("cart hoarder", "cart", "medium", 12),
    ("hit and run", "visit", "medium", 4),
    ("monitor", "poll", "slow", 12),
)
T1_FLEET = ("scraper of many addresses", "scrape", "medium", 36)
T2 = (
    ("scraper", "scrape", "fast", 60),
    ("scraper", "scrape", "medium", 30),
    ("price watcher", "prices", "slow", 12),
    ("search scraper", "search", "medium", 20),
    ("stuffing", "stuffing", "slow", 12),
    ("cart hoarder", "cart", "medium", 10),
    ("hit and run", "visit", "medium", 4),
    ("crawler", "crawl", "medium", 20),
    ("api poller", "poll", "medium", 25),
)
T2_FLEETS = (
    ("scraper of many addresses", "scrape", "medium", 40, "connection"),
    ("stuffing of many addresses", "stuffing", "slow", 12, "8"),
)
T1_TOOLS = (
    "requests",
    "httpx",
    "httpx-h2",
    "aiohttp",
    "urllib",
    "curl",
    "wget",
    "go",
    "java",
    "perl",
    "php",
    "ruby",
    "node-fetch",
    "axios",
    "got",
)
# Tool and the profiles of it that imitate a browser of this year.
T2_TOOLS = {
    "curl-cffi": ("chrome146", "chrome150", "chrome152", "firefox147", "firefox153"),
    "primp": ("chrome_146", "chrome_145", "firefox_146"),
    "rnet": ("Chrome137", "Firefox139"),
    "wreq": ("Chrome150", "Chrome154", "Firefox150", "Firefox152"),
    "tls-client": ("chrome_146", "chrome_150", "chrome_152", "firefox_148"),
    "impit": ("chrome", "firefox"),
    "cycletls": ("chrome",),
}
# Kind, task, pace, tools, seconds; T4 with the seconds of an address (0: its own alone).
T3 = (
    ("scraper", "scrape", "fast", ("playwright", "patchright"), {}),
    ("scraper", "scrape", "fast", ("playwright", "puppeteer"), {"fresh": True, "block": ("image", "style")}),
    ("scraper", "scrape", "steady", ("nodriver", "selenium"), {}),
    ("scraper", "scrape", "fast", ("firefox",), {}),
    ("crawler", "crawl", "steady", ("patchright", "puppeteer", "playwright"), {}),
    ("price watcher", "prices", "steady", ("puppeteer", "playwright"), {"fresh": True}),
    ("price watcher", "prices", "steady", ("selenium", "nodriver"), {}),
    ("stuffing", "stuffing", "steady", ("playwright", "patchright", "firefox"), {}),
    ("search scraper", "search", "steady", ("puppeteer", "firefox"), {}),
    ("cart hoarder", "cart", "steady", ("playwright", "puppeteer"), {}),
)
T4 = (
    ("scraper", "scrape", ("playwright", "patchright"), "20", {}),
    ("scraper", "scrape", ("firefox",), "15", {}),
    ("crawler", "crawl", ("patchright", "playwright"), "25", {}),
    ("crawler", "crawl", ("puppeteer", "firefox"), "connection", {"bare": True}),
    ("price watcher", "prices", ("nodriver", "selenium"), "15", {}),
    ("stuffing", "stuffing", ("playwright", "patchright", "firefox"), "15", {}),
    ("scraper", "scrape", ("playwright", "puppeteer"), "12", {"fresh": True, "referer": "https://www.search.test/"}),
)


@dataclass(frozen=True)
class Browser:
    """A browser that is installed: `chromium` or `firefox`, where, and its major version."""

    engine: str
    path: str
    major: str


@dataclass
class Actor:
    """One person or bot. `place` is its network: empty for one of its own, else a name that others share.

    `rotate`: how rotating.py changes the address, or empty. `plan` is what the client reads from JA4REC_PLAN.
    """

    client: str
    bot: bool
    kind: str
    tier: str
    command: tuple[str, ...]
    plan: dict
    browser: bool
    addresses: int = 1
    place: str = ""
    rotate: str = ""
    src_ips: tuple[str, ...] = field(default=())


def cast(seed: int, browsers: list[Browser], tools: set[str]) -> list[Actor]:
    """All actors of a seed, with their addresses, in the order in which they start."""
    rng = random.Random(seed)
    made = (
        people(rng, browsers)
        + libraries(rng, tools)
        + impersonators(rng)
        + driven(rng, browsers)
        + patient(rng, browsers)
    )
    guest = rng.choice([one for one in made if one.tier in ("T2", "T3") and not one.rotate])
    guest.place = f"nat-{len(NAT_PEOPLE)}"
    rng.shuffle(made)
    for number, actor in enumerate(made, 1):
        actor.plan["seed"] = rng.randrange(2**31)
        actor.client = f"{number:02}-{actor.client}"
    give_addresses(rng, made)
    return made


def give_addresses(rng: random.Random, actors: list[Actor]) -> None:
    """Addresses out of one pool for all; those of a place share one."""
    pool = [f"198.51.100.{number}" for number in range(11, 251)] + [f"203.0.113.{number}" for number in range(11, 131)]
    rng.shuffle(pool)
    v6 = [str(ipaddress.ip_address("2001:db8:100::") + number) for number in rng.sample(range(16, 4096), len(actors))]
    places = {}
    for actor in actors:
        if actor.place:
            actor.src_ips = (places.setdefault(actor.place, pool.pop() if actor.place not in places else ""),)
        elif actor.addresses == 1 and rng.random() < 0.1:
            actor.src_ips = (v6.pop(),)
        else:
            actor.src_ips = tuple(pool.pop() for _ in range(actor.addresses))


def browser_plan(rng: random.Random, browser: Browser, masked: bool = True) -> dict:
    """What every plan of a browser has. Without a window Chromium's User-Agent says so; `masked`: it says what one
    with a window does."""
    agent = CHROME.format(browser.major) if browser.engine == "chromium" and masked else None
    return {
        "engine": browser.engine,
        "path": browser.path,
        "agent": agent,
        "language": rng.choice(LANGUAGES),
        "block": (),
        "tool": "puppeteer",
    }


def people(rng: random.Random, browsers: list[Browser]) -> list[Actor]:
    """People at home, behind an address that a house shares, and in an office behind its proxy."""
    kinds = list(PEOPLE) + rng.choices(list(PEOPLE), k=MORE_PEOPLE)
    settled = [kind for kind, trait in PEOPLE.items() if "rotate" not in trait]
    places = [""] * len(kinds)
    for number, count in enumerate(NAT_PEOPLE, 1):
        kinds += rng.choices(settled, k=count)
        places += [f"nat-{number}"] * count
    kinds += rng.choices(["reader", "shopper", "searcher", "returning", "reloading"], k=OFFICE_PEOPLE)
    places += ["office"] * OFFICE_PEOPLE
    return [person(rng, browsers, kind, place) for kind, place in zip(kinds, places)]


def person(rng: random.Random, browsers: list[Browser], kind: str, place: str) -> Actor:
    """One person of a kind."""
    trait = PEOPLE[kind]
    # Chromium has no switch against Referer, and Firefox without scripts is not driven.
    needed = {"private": "firefox", "without-scripts": "chromium"}.get(kind)
    browser = rng.choice([one for one in browsers if needed in (None, one.engine)])
    low, high = trait["pace"]
    plan = browser_plan(rng, browser) | {
        "bare": True,
        "habits": trait["habits"],
        "pace": rng.uniform(low, high),
        "visits": trait.get("visits", 1),
        "steps": trait.get("steps", 1000),
        "seconds": rng.uniform(25, 50),
        "block": trait.get("block", ()),
        "private": trait.get("private", False),
        "landings": [trait.get("landing", WWW + "/")],
    }
    made = Actor(f"{browser.engine}-{kind}", False, kind, "", ("node", "person.js"), plan, True, place=place)
    if "rotate" in trait:
        made.addresses, made.rotate, plan["seconds"] = 2, str(trait["rotate"]), 50
    return made


def libraries(rng: random.Random, tools: set[str]) -> list[Actor]:
    """T1: each task with another tool."""
    chosen = rng.sample([tool for tool in T1_TOOLS if tool in tools], len(T1))
    made = []
    for tool, (kind, task, pace, count) in zip(chosen, T1):
        made.append(library(rng, tool, kind, task, pace, count))
    fleet = library(rng, rng.choice(("requests", "httpx")), *T1_FLEET)
    fleet.addresses, fleet.rotate = 8, "connection"
    fleet.plan["renew"] = True
    return [*made, fleet]


def library(rng: random.Random, tool: str, kind: str, task: str, pace: str, count: int) -> Actor:
    """A bot that is an HTTP library."""
    agent = rng.choice([CHROME.format(rng.choice((150, 152, 154, 156))), FIREFOX.format(rng.choice((140, 153)))])
    headers = rng.choices(("honest", "agent", "full"), (3, 3, 4))[0]
    plan = {
        "tool": tool,
        "task": task,
        "pace": pace,
        "count": count,
        "headers": headers,
        "agent": agent,
        "language": rng.choice(LANGUAGES),
        "seconds": 150,
    }
    return Actor(f"{tool}-{task}", True, kind, "T1", ("python", "bot.py"), plan, False)


def impersonators(rng: random.Random) -> list[Actor]:
    """T2: each tool at least once."""
    chosen = [*T2_TOOLS, *rng.choices(["curl-cffi", "primp", "wreq"], k=len(T2) - len(T2_TOOLS))]
    rng.shuffle(chosen)
    made = [impersonator(rng, tool, *task) for tool, task in zip(chosen, T2)]
    for kind, task, pace, count, rotate in T2_FLEETS:
        fleet = impersonator(rng, rng.choice(("curl-cffi", "primp", "wreq", "impit")), kind, task, pace, count)
        fleet.addresses, fleet.rotate = rng.randrange(6, 10), rotate
        fleet.plan["renew"] = True
        made.append(fleet)
    return made


def impersonator(rng: random.Random, tool: str, kind: str, task: str, pace: str, count: int) -> Actor:
    """A bot that imitates a browser; its User-Agent is that of the profile, its system Linux."""
    profile = rng.choice(T2_TOOLS[tool])
    major = "".join(letter for letter in profile if letter.isdigit())
    if "irefox" in profile:
        agent = FIREFOX.format(major or {"impit": "144"}.get(tool, "147"))
    else:
        agent = CHROME.format(major or {"impit": "151"}.get(tool, "152"))
    plan = {
        "tool": tool,
        "task": task,
        "pace": pace,
        "count": count,
        "headers": "profile" if tool != "cycletls" else "full",
        "agent": agent,
        "language": rng.choice(LANGUAGES),
        "profile": profile,
        "seconds": 150,
    }
    return Actor(f"{tool}-{task}", True, kind, "T2", ("python", "bot.py"), plan, False)


def driven(rng: random.Random, browsers: list[Browser]) -> list[Actor]:
    """T3: real browsers at a program's pace."""
    return [
        of_browser(
            rng,
            browsers,
            "T3",
            kind,
            task,
            rng.choice(tools),
            {**more, "pace": pace, "seconds": rng.uniform(18, 32)},
            rng.random() < 0.6,
        )
        for kind, task, pace, tools, more in T3
    ]


def patient(rng: random.Random, browsers: list[Browser]) -> list[Actor]:
    """T4: real browsers at a person's pace, with other addresses as they go."""
    made = []
    for kind, task, tools, rotate, more in T4:
        plan = {**more, "pace": "human", "median": rng.uniform(2.5, 5.0), "seconds": rng.uniform(55, 85)}
        actor = of_browser(rng, browsers, "T4", kind, task, rng.choice(tools), plan, True)
        actor.addresses, actor.rotate = rng.randrange(4, 8), rotate
        made.append(actor)
    return made


def of_browser(
    rng: random.Random, browsers: list[Browser], tier: str, kind: str, task: str, tool: str, more: dict, masked: bool
) -> Actor:
    """A bot that drives a browser; the tool `firefox` is Puppeteer with Firefox, all others drive Chromium."""
    engine = "firefox" if tool == "firefox" else "chromium"
    # chromedriver serves the browser of its own version alone.
    fitting = [
        one for one in browsers if one.engine == engine and (tool != "selenium" or one.path == "/usr/bin/chromium")
    ]
    browser = rng.choice(fitting)
    plan = (
        browser_plan(rng, browser, masked) | {"task": task, "tool": "puppeteer" if tool == "firefox" else tool} | more
    )
    command = ("python", "driven.py") if tool in ("nodriver", "selenium") else ("node", "driven.js")
    return Actor(f"{tool}-{task}", True, kind, tier, command, plan, True)
