"""An old client: TLS 1.2 and nothing later."""

import ssl

from common import ARTICLES, SHOP, WWW, Counted, context, pause, report, rng

HEADERS = {"User-Agent": "LegacyReader/3.2", "Accept": "*/*"}

tls = context(maximum_version=ssl.TLSVersion.TLSv1_2)
for host, port in ((WWW, 443), (SHOP, 8443), (WWW, 443)):
    reader = Counted(host, port, tls)
    for path in rng.sample(ARTICLES, 6):
        # It still uses the addresses of the older site and is redirected.
        reader.fetch("GET", f"/articles{path}", HEADERS)
        reader.fetch("GET", path, HEADERS)
        pause(0.2, 1.0)
    reader.close()
report()
