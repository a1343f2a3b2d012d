"""A bot that drives Debian's Chromium with nodriver or Selenium (tiers T3 and T4); as driven.js else.

The plan is JSON in JA4REC_PLAN (see cast.py); a proxy is told in JA4REC_PROXY by rotating.py.
"""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOPICS = ("garden", "kitchen", "workshop", "cycling", "reading", "weather", "travel", "music")
WWW, SHOP = "https://www.example.test", "https://shop.example.test"
ARTICLES = [f"{WWW}/{topic}/{number}.html" for topic in TOPICS for number in (1, 2, 3)]
ITEMS = [f"{SHOP}/shop/item-{number}.html" for number in range(1, 13)]
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-dev-shm-usage",
]

plan = json.loads(os.environ["JA4REC_PLAN"])
rng = random.Random(plan["seed"])
count = {"steps": 0, "failed": 0}


def make_home() -> Path:
    """A home whose NSS database trusts the recording's authority."""
    home = Path(tempfile.mkdtemp(prefix="ja4rec-browser-"))
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    run = ("certutil", "-d", f"sql:{database}")
    subprocess.run([*run, "-N", "--empty-password"], check=True)
    subprocess.run([*run, "-A", "-t", "C,,", "-n", "recording", "-i", os.environ["JA4REC_CA"]], check=True)
    return home


def flags() -> list[str]:
    """Chromium's flags."""
    chosen = [*FLAGS, f"--lang={plan['language'].split(',')[0]}", f"--accept-lang={plan['language'].split(';')[0]}"]
    chosen += [f"--user-agent={plan['agent']}"] if plan.get("agent") else []
    return chosen + ([f"--proxy-server={os.environ['JA4REC_PROXY']}"] if "JA4REC_PROXY" in os.environ else [])


def urls():
    """The pages of the task, without an end."""
    watched = rng.sample(ITEMS, 4)
    while True:
        for url in watched if plan["task"] == "prices" else rng.sample(ARTICLES + ITEMS, len(ARTICLES + ITEMS)):
            yield url


def wait() -> float:
    """Seconds until the next page."""
    if plan["pace"] == "human":
        return min(25.0, plan["median"] * rng.lognormvariate(0, 0.7))
    return rng.uniform(1.4, 1.6) if plan["pace"] == "steady" else rng.uniform(0.05, 0.45)


async def with_nodriver(home: Path, end: float) -> None:
    import nodriver

    browser = await nodriver.start(
        headless=True,
        browser_executable_path=plan["path"],
        sandbox=False,
        user_data_dir=str(home / "profile"),
        browser_args=flags(),
    )
    try:
        for url in urls():
            if time.monotonic() > end:
                break
            count["steps"] += 1
            try:
                tab = await asyncio.wait_for(browser.get(url), 20)
                if plan["task"] == "crawl" and (found := await tab.select_all("ul a")):
                    await asyncio.sleep(wait())
                    count["steps"] += 1
                    await rng.choice(found).click()
            except Exception as error:  # nodriver raises many kinds; the bot goes on
                count["failed"] += 1
                print(repr(error)[:300], file=sys.stderr)
            await asyncio.sleep(wait())
    finally:
        browser.stop()


def with_selenium(home: Path, end: float) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = plan["path"]
    for flag in ["--headless=new", f"--user-data-dir={home / 'profile'}", *flags()]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(20)
    try:
        for url in urls():
            if time.monotonic() > end:
                break
            count["steps"] += 1
            try:
                driver.get(url)
            except Exception as error:  # as above
                count["failed"] += 1
                print(repr(error)[:300], file=sys.stderr)
            time.sleep(wait())
    finally:
        driver.quit()


def main() -> int:
    home = make_home()
    os.environ["HOME"] = str(home)
    # A browser that starts takes its time.
    end = time.monotonic() + plan["seconds"] + 3
    try:
        if plan["tool"] == "nodriver":
            asyncio.run(with_nodriver(home, end))
        else:
            with_selenium(home, end)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(count))
    return 0 if count["steps"] > count["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
