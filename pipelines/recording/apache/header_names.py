"""Keeps the names of request headers and throws their values away.

Apache runs it as the target of ForensicLog. mod_log_forensic writes the request line and every
header of the request, in the order of Apache's header table, which mod_log_config cannot do; the
values contain cookies, so the log goes to this pipe and only `id TAB name,name,...` goes to disk.
Lines starting with `-` mark the end of a request.

Usage: header_names.py OUTPUT
"""

import sys
from urllib.parse import unquote

with open(sys.argv[1], "a", encoding="utf-8") as output:
    for line in sys.stdin.buffer:
        fields = line.decode("latin-1").rstrip("\n").split("|")
        if fields[0].startswith("+"):
            names = ",".join(unquote(field.split(":", 1)[0]) for field in fields[2:])
            output.write(f"{fields[0][1:]}\t{names}\n")
            output.flush()
