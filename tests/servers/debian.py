"""Debian's Apache and nginx with Debian's own configuration, the blocks of docs/servers.md in it, and a small site.

A server runs in a network namespace, on copies of its folder in /etc and with folders of its own for /var/log and /run, so that
what the document says about paths holds there and nothing of the machine is touched.
"""

import re
import shutil
import subprocess
from pathlib import Path

from tests.support import ROOT

DOCUMENT = ROOT / "docs/servers.md"
HOST = "www.example.test"

# Runs a program where `root` of the test's directory is laid over the machine's, in the mount namespace that `ip netns exec` makes.
BIND = """
for at in run var/log etc/apache2 etc/nginx etc/hosts; do
    [ ! -e "$0/root/$at" ] || mount --bind "$0/root/$at" "/$at" || exit 1
done
exec "$@"
"""

# The smallest site with TLS and HTTP/2 that each of them takes. `{dir}` is the test's directory.
SITES = {
    "apache": """\
<VirtualHost *:443>
    ServerName www.example.test
    DocumentRoot {dir}/site
    SSLEngine on
    SSLCertificateFile {dir}/cert.pem
    SSLCertificateKeyFile {dir}/key.pem
    # As Debian's default-ssl has it.
    CustomLog ${{APACHE_LOG_DIR}}/access.log combined
    <Directory {dir}/site>
        Require all granted
    </Directory>
</VirtualHost>
LogFormat "%{{c}}a\\t%{{remote}}p\\t%>s\\t%{{begin:usec}}t\\t%D\\t%r\\t%{{User-Agent}}i" truth
GlobalLog ${{APACHE_LOG_DIR}}/truth.log truth
""",
    "nginx": """\
log_format truth "$remote_addr\\t$remote_port\\t$status\\t$msec\\t$request_time\\t$request\\t$http_user_agent";
access_log /var/log/nginx/truth.log truth;
server {{
    listen 80;
    listen 443 ssl http2;
    server_name www.example.test;
    root {dir}/site;
    ssl_certificate {dir}/cert.pem;
    ssl_certificate_key {dir}/key.pem;
}}
""",
}
COMMANDS = {
    "apache": ("sh", "-c", ". /etc/apache2/envvars && exec apache2 -DFOREGROUND"),
    "nginx": ("nginx", "-g", "daemon off;"),
}


def block(language: str) -> tuple[Path, str]:
    """The only code block of a language in the document: the file that its first line names, and its text as it stands."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    if len(found) != 1:
        raise AssertionError(f"{len(found)} blocks of {language} in {DOCUMENT}")
    return Path(found[0].splitlines()[0].removeprefix("# ")), found[0]


def prepare(directory: Path, server: str) -> None:
    """Writes into `directory` what the server needs: folders, certificate, site and configuration."""
    directory.chmod(0o755)
    root = directory / "root"
    for folder in ("var/log/apache2", "var/log/nginx", "run/lock/apache2", "run/apache2"):
        (root / folder).mkdir(parents=True)
    shutil.chown(root / "var/log/apache2", group="adm")
    (root / "var/log/apache2").chmod(0o750)
    name = "apache2" if server == "apache" else "nginx"
    etc = root / "etc" / name
    shutil.copytree(f"/etc/{name}", etc, symlinks=True)
    path, text = block(server)
    put(root, path, text)
    site = SITES[server].format(dir=directory)
    if server == "apache":
        for kind, names in (("mods", ("http2", "socache_shmcb", "ssl")), ("conf", (path.stem,))):
            enable(etc, kind, names)
        for old in (etc / "sites-enabled").iterdir():
            old.unlink()
        put(root, Path("/etc/apache2/sites-enabled/site.conf"), site)
    else:
        for old in (etc / "sites-enabled").iterdir():
            old.unlink()
        put(root, Path("/etc/nginx/sites-enabled/site"), site)
        log = root / "var/log/nginx/ja4.log"
        log.touch(0o640)
        shutil.chown(log, "www-data", "adm")
    certificate(directory)
    build_site(directory / "site")


def put(root: Path, path: Path, text: str) -> None:
    """Writes a file of the server's, whose folder is there as the package made it."""
    (root / path.relative_to("/")).write_text(text, encoding="utf-8")


def enable(etc: Path, kind: str, names: tuple[str, ...]) -> None:
    """What a2enmod and a2enconf do."""
    for name in names:
        for file in sorted((etc / f"{kind}-available").glob(f"{name}.*")):
            link = etc / f"{kind}-enabled" / file.name
            if not link.is_symlink():
                link.symlink_to(f"../{kind}-available/{file.name}")


def certificate(directory: Path) -> None:
    """An authority that browsers can be told to trust, and the server's certificate by it."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7")
    for command in (
        ("-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        ("-subj", f"/CN={HOST}", "-keyout", "key.pem", "-out", "cert.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
         "-addext", f"subjectAltName=DNS:{HOST}", "-addext", "basicConstraints=critical,CA:FALSE",
         "-addext", "extendedKeyUsage=serverAuth"),
    ):
        subprocess.run(["openssl", "req", "-x509", *curve, *command], check=True, capture_output=True, cwd=directory)


# A visit of a browser goes from page to page by itself, to the last one.
PAGES = 6
# A file that takes long to read, in bytes; far above what the sockets hold.
LARGE = 48 << 20


def build_site(site: Path) -> None:
    """Pages that lead to one another, with style, script and pictures, and a large file."""
    site.mkdir()
    (site / "index.html").write_text("<!doctype html><title>Home</title><p>Home.\n")
    (site / "style.css").write_text("body { font-family: sans-serif }\n")
    (site / "favicon.ico").write_bytes(bytes(70))
    with (site / "large").open("wb") as large:
        large.truncate(LARGE)
    for number in range(1, PAGES + 1):
        follow = f"setTimeout(() => location = '/page-{number + 1}.html?from={number}', 700)"
        follow = follow if number < PAGES else "fetch('/last')"
        (site / f"picture-{number}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>\n")
        (site / f"script-{number}.js").write_text(f"window.addEventListener('load', () => {{ {follow} }})\n")
        (site / f"page-{number}.html").write_text(
            f"<!doctype html><title>Page {number}</title><link rel=stylesheet href=/style.css>"
            f"<img src=/picture-{number}.svg><script src=/script-{number}.js></script>\n")
    (site / "last").write_text("\n")


def inside(namespace: str, directory: Path) -> tuple[str, ...]:
    """In front of a program: it runs in the namespace, where its folders are those of `directory`."""
    return ("ip", "netns", "exec", namespace, "sh", "-c", BIND, str(directory))
