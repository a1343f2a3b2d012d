"""The oracles against small cases worked out by hand. Run: python3 -m unittest discover -s pipelines/tests/oracle"""

import math
import tempfile
import unittest
from pathlib import Path

from asn import Networks
from compare import Tally, compare_rows, row_columns
from correlate import SECOND, Request, iso_nanoseconds, join
from features import features, of_rows, written
from further import conditional_entropy, is_asset, is_attack, is_page
from hellos import NOTHING, Fields, Hello, alpn_characters, ja4

HOUR = 1_795_446_000 * SECOND
JA4 = "t13d1516h2_8daaf6152771_e5627efa2ab1"


def hello(seconds: float, port: int = 40_000) -> Hello:
    """A hello of one client, at so many seconds after HOUR."""
    return Hello(HOUR + round(seconds * SECOND), 0, "198.51.100.1", port, "192.0.2.10", 443, JA4, "www.example.test",
                 "h2", 64, 1, 64_240, 1_460, 1.0)


def request(seq: int, seconds: float, port: int = 40_000, lasts: float = 0, **line: object) -> Request:
    """A request of the same client, that began at so many seconds after HOUR."""
    given = {"method": "GET", "scheme": "https", "host": "www.example.test", "path": "/", "http_version": "HTTP/2.0",
             "status_code": 200, "dst_port": 443, **line}
    begin = HOUR + round(seconds * SECOND)
    return Request(seq, begin, begin + round(lasts * SECOND), "198.51.100.1", port, given)


def matches(requests: list[Request], hellos: list[Hello]) -> list[tuple[float | None, int]]:
    """Seconds of the hello that each request got, and its keep-alive number."""
    return [((row.hello.time - HOUR) / SECOND if row.hello else None, row.keepalives)
            for row in join(requests, hellos)]


class Ja4(unittest.TestCase):
    """RFC 8446 fields to a fingerprint."""

    def test_alpn_characters(self):
        """Text ends as they are; other bytes by their hex form."""
        cases = {b"h2": "h2", b"http/1.1": "h1", b"x": "xx", b"\xab": "ab", b"\xab\xcd": "ad", b"\x20\x61": "21",
                 b"\x30\xab": "3b", b"\x30\x31\xab\xcd": "3d", b"": "00"}
        for value, characters in cases.items():
            self.assertEqual(alpn_characters([value]), characters, value)
        self.assertEqual(alpn_characters([]), "00")

    def test_only_a_server_name_leaves_nothing_to_hash(self):
        """SNI is counted but not hashed."""
        self.assertEqual(ja4(Fields("0303", extensions=["0000"], server_name="a")), f"t12d000100_{NOTHING}_{NOTHING}")

    def test_grease_is_left_out_everywhere(self):
        """Also among the signature algorithms, and in supported_versions."""
        plain = Fields("0303", ["1301"], ["002b", "000d"], ["0304"], ["0403"])
        greased = Fields("0303", ["0a0a", "1301"], ["fafa", "002b", "000d"], ["dada", "0304"], ["0403", "7a7a"])
        self.assertEqual(ja4(plain), ja4(greased))
        self.assertEqual(ja4(plain)[:10], "t13i010200")


class Join(unittest.TestCase):
    """The rules of the join, one by one."""

    def test_window_then_keep_alive(self):
        """10 s to the first request, then 120 s from each."""
        self.assertEqual(matches([request(0, 10), request(1, 130), request(2, 250.1)], [hello(0)]),
                         [(0, 1), (0, 2), (None, 0)])
        self.assertEqual(matches([request(0, 10.1)], [hello(0)]), [(None, 0)])

    def test_the_latest_hello_wins(self):
        """A port that is used again is another connection."""
        self.assertEqual(matches([request(0, 1), request(1, 6)], [hello(0), hello(5)]), [(0, 1), (5, 1)])

    def test_a_hello_may_come_a_little_later(self):
        """Up to 500 ms, and only where none came before."""
        self.assertEqual(matches([request(0, 1)], [hello(1.5), hello(1.6)]), [(1.5, 1)])
        self.assertEqual(matches([request(0, 1)], [hello(1.51)]), [(None, 0)])
        self.assertEqual(matches([request(0, 1)], [hello(0), hello(1.1)]), [(0, 1)])

    def test_a_slow_request_is_compared_by_its_begin(self):
        """It keeps its hello, and the keep-alive time runs from its end."""
        self.assertEqual(matches([request(0, 1, lasts=600), request(1, 700)], [hello(0)]), [(0, 1), (0, 2)])
        self.assertEqual(matches([request(0, 1, lasts=600), request(1, 722)], [hello(0)]), [(0, 1), (None, 0)])

    def test_order_is_event_time(self):
        """Whatever the order of lines."""
        self.assertEqual(matches([request(0, 2), request(1, 1)], [hello(0)]), [(0, 1), (0, 2)])
        self.assertEqual([row.request.seq for row in join([request(0, 2), request(1, 1)], [])], [1, 0])

    def test_another_port_is_another_client(self):
        """The key is address and port."""
        self.assertEqual(matches([request(0, 1, port=40_001)], [hello(0)]), [(None, 0)])

    def test_times_keep_their_nanoseconds(self):
        """Nine digits, an offset, or none of either."""
        self.assertEqual(iso_nanoseconds("1970-01-01T00:00:01.000000007Z"), SECOND + 7)
        self.assertEqual(iso_nanoseconds("1970-01-01T01:00:01.5+01:00"), SECOND + SECOND // 2)
        self.assertEqual(iso_nanoseconds("1970-01-01T00:00:02Z"), 2 * SECOND)


class Groups(unittest.TestCase):
    """Features of one small group."""

    def test_four_requests(self):
        """Gaps of 1 s, 1 s and 8 s, one POST, one missing path, two paths twice."""
        rows = [request(0, 0.5), request(1, 1.5, path="/a.css"), request(2, 2.5, method="POST", path="/login",
                status_code=401), request(3, 10.5, path="/.env", status_code=404)]
        (group,) = features(join(rows, [hello(0)]))
        self.assertEqual(group["window_start"], HOUR)
        self.assertEqual((group["hits"], group["conn_count"], group["max_keepalives"]), (4, 1, 4))
        self.assertEqual((group["login_posts"], group["login_failures"], group["distinct_404"]), (1, 1, 1))
        self.assertAlmostEqual(group["hit_velocity"], 0.4)
        self.assertAlmostEqual(group["iat_mean_log"], math.log(1 + 10_000 / 3))
        self.assertAlmostEqual(group["pause_ratio"], 1 / 3)
        self.assertAlmostEqual(group["asset_ratio"], 0.25)
        self.assertAlmostEqual(group["sensitive_path_ratio"], 0.25)
        self.assertAlmostEqual(group["path_entropy"], 1)
        self.assertIsNone(group["lag1_autocorrelation"])

    def test_one_orphan(self):
        """No gaps and no hello: null, not zero."""
        (group,) = features(join([request(0, 1)], []))
        self.assertEqual(group["orphan_ratio"], 1)
        for name in ("ja4", "iat_mean_log", "iat_entropy", "iat_burst_ratio", "sni_missing", "window_mss_ratio"):
            self.assertIsNone(group[name], name)


    def test_pages_and_their_files(self):
        """Two pages, of which one names files; ids one after the other; a proxy hides the transport."""
        named = ["/", "/a.css", "/b.js", "/item/7", "/favicon.ico", "/item/8?", "/item/10"]
        rows = [request(seq, 0.5 + seq, path=path.rstrip("?"), lasts=0) for seq, path in enumerate(named)]
        (group,) = features(join(rows, [hello(0)]))
        self.assertEqual((group["cascade_ratio"], group["asset_after_page_ms"]), (0.5, 1000))
        self.assertEqual((group["root_to_first_asset_delay"], group["favicon_requested"]), (1000, True))
        self.assertAlmostEqual(group["asset_load_stddev"], math.sqrt(2 / 9) * 1000)
        self.assertAlmostEqual(group["seq_id_ratio"], 1 / 7)
        self.assertAlmostEqual(group["peak_1m_share"], 1)
        self.assertIsNone(group["iat_benford_chi2"])
        self.assertEqual((group["transport_seen"], group["alpn_http_mismatch"]), (1, 0))
        for row in rows:
            row.line["header_X-Forwarded-For"] = "192.0.2.1"
        (group,) = features(join(rows, [hello(0)]))
        self.assertEqual(group["transport_seen"], 0)
        for name in ("alpn_http_mismatch", "sni_missing", "ttl_os_mismatch", "true_window_size", "mss_mobile_mismatch"):
            self.assertIsNone(group[name], name)

    def test_rows_that_the_engine_wrote(self):
        """They have other names, and give the same."""
        rows = [request(0, 0.5), request(1, 1.5, path="/a.css", duration_ms=20_000)]
        line = {"time": "2026-11-23T15:00:00.500000000Z", "seq": 0, "src_ip": "198.51.100.1", "src_port": 40_000,
                "method": "GET", "scheme": "https", "host": "www.example.test", "path": "/", "status_code": 200,
                "http_version": "HTTP/2.0", "dst_port": 443, "correlated": 0, "keepalives": 0}
        second = line | {"time": "2026-11-23T15:00:01.500000000Z", "seq": 1, "path": "/a.css", "duration_ms": 20_000}
        self.assertEqual(of_rows([written(line), written(second)]), features(join(rows, [])))

    def test_small_parts(self):
        """What a path is, what an attack is, and how much a value says of the next."""
        self.assertTrue(is_page("/") and is_page("/a/b") and is_page("/a.php") and not is_page("/a.txt"))
        self.assertTrue(is_asset("/a/b.woff2") and not is_asset("/css") and not is_asset("/a.css/"))
        self.assertTrue(is_attack("id=1 UNION ALL SELECT 2") and not is_attack("unionselect") and is_attack("/../x"))
        self.assertEqual(conditional_entropy(["a", "b", "a", "b"]), 0)
        self.assertEqual(conditional_entropy([0, 0, 1, 1, 0]), 1)
        self.assertIsNone(conditional_entropy(["a"]))


class Comparison(unittest.TestCase):
    """What counts as a difference."""

    def test_numbers(self):
        """Integers exactly, floats within the tolerance, null only with null."""
        tally = Tally()
        tally.check("equal", "", 0.1 + 0.2, 0.3)
        tally.check("equal", "", None, None)
        tally.check("float", "", 1.0, 1.00001)
        tally.check("integer", "", HOUR, HOUR + 1)
        tally.check("null", "", None, 0)
        self.assertEqual(set(tally.different), {"float", "integer", "null"})

    def test_rows_that_are_missing_or_twice(self):
        """Each request once."""
        joined = join([request(0, 1), request(1, 2)], [hello(0)])
        row = {"seq": 0, **row_columns(joined[0], None), "time": "2026-11-23T15:00:01.000000000Z"}
        self.assertEqual(compare_rows([row, row], joined, None).different, {"request": 2})

    def test_longest_prefix(self):
        """The longest network wins; outside all there is nothing."""
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "asn.csv"
            table.write_text("network,asn,country_code,name,org,domain\n198.51.100.0/24,64496,FR,A,,\n"
                             "198.51.100.0/25,AS64497,DE,B,,\n", encoding="utf-8")
            networks = Networks(table)
        self.assertEqual(networks.find("198.51.100.1")["src_asn"], 64_497)
        self.assertEqual(networks.find("198.51.100.200"), {"src_asn": 64_496, "src_country_code": "FR",
                                                          "src_as_name": "A"})
        self.assertEqual(networks.find("2001:db8::1"), {})


if __name__ == "__main__":
    unittest.main()
