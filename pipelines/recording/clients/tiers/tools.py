"""The HTTP programs that bots of tiers T1 and T2 are made of, each as `fetch(method, url, body) -> status`.

Libraries of Python run in this process; programs of other languages are fed over a pipe, one request a line
(`lines/`). What a request says of its sender is one of:
  honest   the library's own headers
  agent    these, with the User-Agent of a browser
  full     all headers of a browser's navigation, as people copy them from its developer tools
  profile  those of the browser that the library imitates (T2)
"""

import json
import os
import subprocess
from pathlib import Path

LINES = Path(__file__).resolve().parent / "lines"
LIMIT_S = 20

# Tool -> the command that reads `METHOD URL BODY` lines and answers each with a line that begins with the status.
PIPED = {
    "go": ("{work}/fetch-go",),
    "java": (
        "java",
        "-XX:TieredStopAtLevel=1",
        "-Djdk.internal.httpclient.disableHostnameVerification=true",
        f"{LINES}/Fetch.java",
    ),
    "perl": ("perl", f"{LINES}/fetch.pl"),
    "php": ("php", f"{LINES}/fetch.php"),
    "ruby": ("ruby", f"{LINES}/fetch.rb"),
    "node-fetch": ("node", f"{LINES}/fetch.js", "fetch"),
    "axios": ("node", f"{LINES}/fetch.js", "axios"),
    "got": ("node", f"{LINES}/fetch.js", "got"),
    "cycletls": ("node", f"{LINES}/fetch.js", "cycletls"),
}


def browser_headers(agent: str, language: str) -> dict[str, str]:
    """A navigation's headers, in the order in which a browser sends them."""
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
    if "Firefox" in agent:
        return {
            "User-Agent": agent,
            "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "Accept-Language": language,
            "Accept-Encoding": "gzip, deflate, br, zstd",
            "Upgrade-Insecure-Requests": "1",
            "Sec-Fetch-Dest": "document",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Site": "none",
            "Sec-Fetch-User": "?1",
        }
    major = agent.split("Chrome/")[1].split(".")[0]
    return {
        "sec-ch-ua": f'"Chromium";v="{major}", "Not_A Brand";v="24"',
        "sec-ch-ua-mobile": "?0",
        "sec-ch-ua-platform": '"Linux"',
        "Upgrade-Insecure-Requests": "1",
        "User-Agent": agent,
        "Accept": accept,
        "Sec-Fetch-Site": "none",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-User": "?1",
        "Sec-Fetch-Dest": "document",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Accept-Language": language,
    }


def headers_of(plan: dict) -> dict[str, str]:
    """The headers that the plan adds to the library's own."""
    if plan["headers"] == "agent":
        return {"User-Agent": plan["agent"]}
    if plan["headers"] == "full":
        return browser_headers(plan["agent"], plan["language"])
    return {}


def form(body: str | None) -> dict[str, str]:
    """The Content-Type of a body."""
    if body is None:
        return {}
    return {"Content-Type": "application/json" if body.startswith("{") else "application/x-www-form-urlencoded"}


def make(plan: dict):
    """The fetch function of the plan's tool."""
    tool = plan["tool"]
    if tool in PIPED:
        return piped(PIPED[tool], plan)
    return {
        "requests": requests_,
        "httpx": httpx_,
        "httpx-h2": httpx_,
        "aiohttp": aiohttp_,
        "urllib": urllib_,
        "curl": curl_,
        "wget": wget_,
        "curl-cffi": curl_cffi_,
        "primp": primp_,
        "rnet": rnet_,
        "wreq": wreq_,
        "tls-client": tls_client_,
        "impit": impit_,
    }[tool](plan)


def piped(command: tuple[str, ...], plan: dict):
    """A program that is told each request on its standard input."""
    told = {"headers": headers_of(plan), "profile": plan.get("profile", ""), "agent": plan["agent"]}
    process = subprocess.Popen(
        [word.format(work=os.environ["JA4REC_WORK"]) for word in command],
        text=True,
        bufsize=1,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "JA4REC_TOLD": json.dumps(told)},
    )

    def fetch(method: str, url: str, body: str | None = None) -> int:
        process.stdin.write(f"{method}\t{url}\t{body or ''}\n")
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{command[0]} has ended")
        return int(answer.split()[0])

    fetch.close = process.stdin.close
    return fetch


def requests_(plan: dict):
    import requests

    session = requests.Session()
    session.verify = os.environ["JA4REC_CA"]
    session.headers.update(headers_of(plan))
    if plan.get("proxy"):
        session.proxies = {"https": plan["proxy"]}

    def fetch(method, url, body=None):
        return session.request(
            method, url, data=body, headers=form(body), timeout=LIMIT_S, allow_redirects=False
        ).status_code

    return fetch


def httpx_(plan: dict):
    import httpx

    session = httpx.Client(
        http2=plan["tool"] == "httpx-h2",
        verify=os.environ["JA4REC_CA"],
        headers=headers_of(plan),
        proxy=plan.get("proxy"),
        timeout=LIMIT_S,
    )

    def fetch(method, url, body=None):
        return session.request(method, url, content=body, headers=form(body)).status_code

    return fetch


def aiohttp_(plan: dict):
    import asyncio
    import ssl

    import aiohttp

    loop = asyncio.new_event_loop()

    async def begin():
        trust = ssl.create_default_context(cafile=os.environ["JA4REC_CA"])
        return aiohttp.ClientSession(headers=headers_of(plan), connector=aiohttp.TCPConnector(ssl=trust))

    session = loop.run_until_complete(begin())

    async def one(method, url, body):
        async with session.request(method, url, data=body, headers=form(body), allow_redirects=False) as answer:
            await answer.read()
            return answer.status

    def fetch(method, url, body=None):
        return loop.run_until_complete(asyncio.wait_for(one(method, url, body), LIMIT_S))

    fetch.close = lambda: loop.run_until_complete(session.close())
    return fetch


def urllib_(plan: dict):
    import ssl
    import urllib.error
    import urllib.request

    trust = ssl.create_default_context(cafile=os.environ["JA4REC_CA"])

    def fetch(method, url, body=None):
        request = urllib.request.Request(
            url, method=method, data=body.encode() if body else None, headers={**headers_of(plan), **form(body)}
        )
        try:
            with urllib.request.urlopen(request, context=trust, timeout=LIMIT_S) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    return fetch


def curl_(plan: dict):
    fixed = [
        "curl",
        "--silent",
        "--cacert",
        os.environ["JA4REC_CA"],
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--max-time",
        str(LIMIT_S),
    ]
    for name, value in headers_of(plan).items():
        if name != "Accept-Encoding":
            fixed += ["--header", f"{name}: {value}"]
    fixed += ["--compressed"] if plan["headers"] == "full" else []

    def fetch(method, url, body=None):
        more = ["--head"] if method == "HEAD" else ["--data", body] if body else []
        return int(subprocess.run([*fixed, *more, url], capture_output=True, text=True, check=False).stdout or 0)

    return fetch


def wget_(plan: dict):
    fixed = [
        "wget",
        "--quiet",
        "--ca-certificate",
        os.environ["JA4REC_CA"],
        "--output-document",
        "/dev/null",
        "--tries",
        "1",
    ]
    for name, value in headers_of(plan).items():
        # Wget sends its own unless told by the option, and does not decompress.
        fixed += (
            [f"--user-agent={value}"]
            if name == "User-Agent"
            else [] if name == "Accept-Encoding" else [f"--header={name}: {value}"]
        )

    def fetch(method, url, body=None):
        more = ["--spider"] if method == "HEAD" else [f"--post-data={body}"] if body else []
        return 200 if subprocess.run([*fixed, *more, url], check=False).returncode == 0 else 0

    return fetch


def linux(agent: str) -> str:
    """A User-Agent with the system of this recording's people, so that no rule can go by the system's name."""
    start, _, rest = agent.partition("(")
    system, _, rest = rest.partition(")")
    revision = f"; {system.split('; ')[-1]}" if "rv:" in system else ""
    return f"{start}(X11; Linux x86_64{revision}){rest}"


def curl_cffi_(plan: dict):
    from curl_cffi import requests

    session = requests.Session(
        impersonate=plan["profile"], verify=False, proxies={"https": plan["proxy"]} if plan.get("proxy") else None
    )
    chosen = {"User-Agent": plan["agent"]}
    if "Firefox" not in plan["agent"]:
        chosen["sec-ch-ua-platform"] = '"Linux"'

    def fetch(method, url, body=None):
        return session.request(
            method, url, data=body, headers={**chosen, **form(body)}, timeout=LIMIT_S, allow_redirects=False
        ).status_code

    return fetch


def primp_(plan: dict):
    import primp

    session = primp.Client(
        impersonate=plan["profile"],
        impersonate_os="linux",
        verify=False,
        proxy=plan.get("proxy"),
        timeout=LIMIT_S,
        follow_redirects=False,
    )

    def fetch(method, url, body=None):
        return session.request(method, url, content=body.encode() if body else None, headers=form(body)).status_code

    return fetch


def rnet_(plan: dict):
    import rnet

    option = rnet.ImpersonateOption(getattr(rnet.Impersonate, plan["profile"]), rnet.ImpersonateOS.Linux)
    proxies = [rnet.Proxy.all(plan["proxy"])] if plan.get("proxy") else None
    session = rnet.BlockingClient(impersonate=option, verify=False, timeout=LIMIT_S, proxies=proxies, cookie_store=True)

    def fetch(method, url, body=None):
        verb = getattr(rnet.Method, method)
        return session.request(verb, url, body=body, headers=form(body)).status_code.as_int()

    return fetch


def wreq_(plan: dict):
    import wreq
    from wreq.blocking import Client
    from wreq.emulation import Emulation, Platform, Profile

    proxies = [wreq.Proxy.all(plan["proxy"])] if plan.get("proxy") else None
    session = Client(
        emulation=Emulation(getattr(Profile, plan["profile"]), Platform.Linux),
        tls_verify=False,
        tls_verify_hostname=False,
        proxies=proxies,
        cookie_store=True,
    )

    def fetch(method, url, body=None):
        verb = getattr(wreq.Method, method)
        answer = session.request(verb, url, body=body, headers=form(body))
        return answer.status.as_int()

    return fetch


def tls_client_(plan: dict):
    import tls_client

    session = tls_client.Session(client_identifier=plan["profile"], random_tls_extension_order=True)
    session.headers = browser_headers(plan["agent"], plan["language"])
    options = {"proxy": plan["proxy"]} if plan.get("proxy") else {}

    def fetch(method, url, body=None):
        return session.execute_request(
            method,
            url,
            data=body,
            headers=form(body),
            insecure_skip_verify=True,
            allow_redirects=False,
            timeout_seconds=LIMIT_S,
            **options,
        ).status_code

    return fetch


def impit_(plan: dict):
    import impit

    session = impit.Client(
        browser=plan["profile"],
        verify=False,
        proxy=plan.get("proxy"),
        timeout=LIMIT_S,
        headers={"User-Agent": plan["agent"]}
        | ({} if "Firefox" in plan["agent"] else {"sec-ch-ua-platform": '"Linux"'}),
    )

    def fetch(method, url, body=None):
        return session.request(method, url, content=body.encode() if body else None, headers=form(body)).status_code

    return fetch
