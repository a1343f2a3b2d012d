"""Longest-prefix match over the ASN table, by trying every prefix length of an address from the longest down."""

import csv
import ipaddress
from pathlib import Path

COLUMNS = {"asn": "src_asn", "country_code": "src_country_code", "name": "src_as_name", "org": "src_org",
           "domain": "src_domain"}


class Networks:
    """The table of one CSV file (network, asn, country_code, name, org, domain)."""

    def __init__(self, table: Path):
        self.rows: dict[tuple[int, int, int], dict] = {}
        with table.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                network = ipaddress.ip_network(row["network"].strip())
                self.rows[network.version, network.prefixlen, int(network.network_address)] = row

    def find(self, address: str) -> dict:
        """The columns of the longest network that holds the address; empty text counts as absent."""
        parsed = ipaddress.ip_address(address)
        bits = parsed.max_prefixlen
        for length in range(bits, -1, -1):
            masked = int(parsed) >> (bits - length) << (bits - length)
            row = self.rows.get((parsed.version, length, masked))
            if row is not None:
                found = {ours: row[theirs] for theirs, ours in COLUMNS.items() if row.get(theirs)}
                if "src_asn" in found:
                    found["src_asn"] = int(found["src_asn"].upper().removeprefix("AS"))
                return found
        return {}
