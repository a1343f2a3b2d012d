"""Writes the static site of the recording: about 40 pages with styles, scripts and pictures.

The pages are generated, not stored: `build(root)` writes the same bytes every time. One document
root serves both host names.
"""

import random
import struct
import zlib
from pathlib import Path

TOPICS = ("garden", "kitchen", "workshop", "cycling", "reading", "weather", "travel", "music")
ARTICLES_PER_TOPIC = 3
PRODUCTS = 12
WORDS = (
    "a the of and in wooden small slow early river winter paper garden window copper bread table field "
    "bicycle letter evening island harbour market lamp winding careful green quiet stone repair measure "
    "carry gather grow open follow return between beside under after before"
).split()


def build(root: Path) -> None:
    """Writes the whole site below `root`, which must exist."""
    rng = random.Random(20)
    for name, text in pages(rng):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    (root / "img").mkdir(exist_ok=True)
    for number in range(1, PRODUCTS + 1):
        (root / f"img/item-{number}.png").write_bytes(png(rng, 96, 96))
    (root / "img/logo.png").write_bytes(png(rng, 160, 40))
    (root / "favicon.ico").write_bytes(png(rng, 16, 16))


def pages(rng: random.Random):
    """Yields (path, text) of every text file."""
    yield "css/site.css", CSS
    yield "css/print.css", "@media print { nav { display: none } }\n"
    yield "js/site.js", JS
    yield "js/cart.js", CART_JS
    yield "robots.txt", "User-agent: *\nDisallow: /account/\nDisallow: /cart.html\nSitemap: https://www.example.test/sitemap.xml\n"
    yield "health", "ok\n"

    articles = [f"{topic}/{number}.html" for topic in TOPICS for number in range(1, ARTICLES_PER_TOPIC + 1)]
    items = [f"shop/item-{number}.html" for number in range(1, PRODUCTS + 1)]
    names = ["index.html", "about.html", "login.html", "shop/index.html", *articles, *items]
    urls = "".join(f"<url><loc>https://www.example.test/{name}</loc></url>" for name in names)
    yield "sitemap.xml", f'<?xml version="1.0" encoding="UTF-8"?><urlset>{urls}</urlset>\n'

    links = "".join(f'<li><a href="/{name}">{name}</a></li>' for name in articles)
    yield "index.html", page("Example magazine", f"<p>{prose(rng, 60)}</p><ul class=list>{links}</ul>{thumbs(rng, 4)}")
    yield "about.html", page("About", f"<p>{prose(rng, 120)}</p>")
    yield "login.html", page("Sign in", LOGIN_FORM)
    shelf = "".join(f'<li><a href="/{name}"><img src="/img/item-{n}.png" alt="item {n}">item {n}</a></li>'
                    for n, name in enumerate(items, 1))
    yield "shop/index.html", page("Shop", f"<ul class=shelf>{shelf}</ul>")
    for name in articles:
        more = "".join(f'<li><a href="/{other}">{other}</a></li>' for other in rng.sample(articles, 5))
        yield name, page(name, f"<p>{prose(rng, 300)}</p>{thumbs(rng, 3)}<ul>{more}</ul>")
    for number, name in enumerate(items, 1):
        body = f'<img src="/img/item-{number}.png" alt=""><p>{prose(rng, 90)}</p><button id=add>Add to cart</button>'
        yield name, page(f"Item {number}", body + '<script src="/js/cart.js" defer></script>')


def page(title: str, body: str) -> str:
    """One HTML page in the site's frame."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<link rel="stylesheet" href="/css/site.css"><link rel="stylesheet" href="/css/print.css" media="print">'
        '<script src="/js/site.js" defer></script></head><body><nav><img src="/img/logo.png" alt="Example">'
        '<a href="/">home</a> <a href="/shop/">shop</a> <a href="/about.html">about</a> <a href="/login.html">sign in</a>'
        '<form action="/search"><input name="q"></form></nav>'
        f"<h1>{title}</h1>{body}</body></html>\n"
    )


def thumbs(rng: random.Random, count: int) -> str:
    """Pictures of a few shop items."""
    chosen = rng.sample(range(1, PRODUCTS + 1), count)
    return "".join(f'<img src="/img/item-{number}.png" alt="">' for number in chosen)


def prose(rng: random.Random, words: int) -> str:
    """Filler text."""
    return " ".join(rng.choice(WORDS) for _ in range(words)) + "."


def png(rng: random.Random, width: int, height: int) -> bytes:
    """A picture of random 8-pixel tiles, 8 bits of grey."""
    tiles = [[rng.randrange(256) for _ in range(width // 8)] for _ in range(height // 8)]
    rows = b"".join(b"\0" + bytes(tiles[y // 8][x // 8] for x in range(width)) for y in range(height))

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


CSS = """body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: auto }
nav { display: flex; gap: 1rem; align-items: center }
.shelf { display: grid; grid-template-columns: repeat(4, 1fr); list-style: none }
"""

JS = """fetch('/api/session', { headers: { Accept: 'application/json' } })
  .then((answer) => answer.json())
  .then((session) => { document.body.dataset.user = session.user || 'guest' })
  .catch(() => {})
"""

CART_JS = """document.getElementById('add').addEventListener('click', () => {
  fetch('/api/cart', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ item: location.pathname, count: 1 }),
  })
})
"""

LOGIN_FORM = """<form action="/login" method="post"><input name="user"><input name="password" type="password">
<button>Sign in</button></form>"""
