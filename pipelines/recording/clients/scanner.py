"""A path scanner: asks for files that a careless server would show, over short connections."""

from common import WWW, Counted, pause, report, rng

NAMES = (
    ".env .env.local .env.bak .git/config .git/HEAD .svn/entries .htpasswd .DS_Store .aws/credentials .ssh/id_rsa "
    "wp-login.php wp-admin/setup-config.php wp-content/debug.log wp-config.php.bak xmlrpc.php phpinfo.php info.php "
    "phpmyadmin/index.php pma/index.php adminer.php admin/ admin/login.php administrator/index.php manager/html "
    "server-status actuator/env actuator/health jenkins/script solr/admin/info/system console/ api/v1/users "
    "api/swagger.json graphql backup.zip backup.sql dump.sql db.sqlite3 config.php config.yml config.json "
    "composer.json package.json Dockerfile docker-compose.yml web.config cgi-bin/test.cgi shell.php upload.php "
    "login.action struts/utils.js vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php owa/auth/logon.aspx robots.txt"
).split()
FOLDERS = ("", "old/", "test/", "dev/", "backup/", "site/")
PROBES = ("?id=1%27%20OR%201=1--", "?file=../../../../etc/passwd", "?q=%3Cscript%3Ealert(1)%3C/script%3E")
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; pathprobe/0.9)", "Accept": "*/*"}

paths = [f"/{folder}{name}" for folder in FOLDERS for name in NAMES]
rng.shuffle(paths)
scan = Counted(WWW)
for number, path in enumerate(paths):
    method = "HEAD" if number % 10 == 9 else "GET"
    scan.fetch(method, path + (rng.choice(PROBES) if number % 7 == 6 else ""), HEADERS)
    if number % 15 == 14:
        scan.close()
    pause(0.03, 0.25)
scan.close()
report()
