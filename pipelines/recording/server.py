"""The web server of the recording: certificates, the site, its dynamic part and Apache."""

import importlib.util
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import net
import requestlog
from roster import HOSTS

HERE = Path(__file__).resolve().parent
MODULES = Path("/usr/lib/apache2/modules")
APP_PORT = 9000


def prepare(work: Path) -> None:
    """Writes everything that Apache needs into `work`: certificates, document root, configuration."""
    work.chmod(0o755)
    certificates(work)
    root = work / "htdocs"
    root.mkdir()
    site_builder().build(root)
    values = {
        "run": str(work),
        "here": str(HERE / "apache"),
        "modules": str(MODULES),
        "python": sys.executable,
        "app_port": str(APP_PORT),
        "log_format": requestlog.log_format(),
    }
    template = (HERE / "apache/httpd.conf.in").read_text()
    (work / "httpd.conf").write_text(re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], template))


def start(work: Path) -> list[subprocess.Popen]:
    """Starts the dynamic part and Apache in the server's namespace and waits until both answer."""
    app = spawn(work, "app", sys.executable, str(HERE / "site/app.py"), str(APP_PORT))
    apache = spawn(work, "apache", shutil.which("apache2"), "-f", str(work / "httpd.conf"), "-DFOREGROUND")
    url = f"https://{HOSTS[0]}/api/status"
    probe = net.inside(net.SERVER, "curl", "-sf", "--cacert", str(work / "ca.pem"), "-o", "/dev/null", url)
    for _ in range(100):
        if app.poll() is not None or apache.poll() is not None:
            raise RuntimeError(f"the web server ended at once:\n{errors(work)}")
        if subprocess.run(probe, check=False).returncode == 0:
            return [app, apache]
        time.sleep(0.1)
    raise RuntimeError(f"the web server does not answer:\n{errors(work)}")


def spawn(work: Path, name: str, *command: str) -> subprocess.Popen:
    """A process of the server, its output in a file of that name."""
    with (work / f"{name}.out").open("w") as out:
        return subprocess.Popen(net.inside(net.SERVER, *command), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                start_new_session=True)


def errors(work: Path) -> str:
    """What the server's processes said."""
    files = [work / name for name in ("app.out", "apache.out", "error.log")]
    return "".join(file.read_text(errors="replace") for file in files if file.exists())


def certificates(work: Path) -> None:
    """A certificate authority for this recording only, and the server's certificate."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7")
    net.run("openssl", "req", "-x509", *curve, "-subj", "/CN=Recording CA", "-keyout", f"{work}/ca.key",
            "-out", f"{work}/ca.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    net.run("openssl", "req", "-x509", *curve, "-subj", f"/CN={HOSTS[0]}", "-keyout", f"{work}/server.key",
            "-out", f"{work}/server.pem", "-CA", f"{work}/ca.pem", "-CAkey", f"{work}/ca.key",
            "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", "extendedKeyUsage=serverAuth")


def site_builder():
    """site/build.py; loaded by its path, because `site` is also a module of Python's library."""
    spec = importlib.util.spec_from_file_location("site_build", HERE / "site/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
