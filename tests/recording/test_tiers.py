"""The cast of the second recording, and what its report makes of groups. Nothing is recorded here."""

import sys
import unittest
from collections import Counter

from tests.support import PIPELINES

ROOT = PIPELINES.parent
sys.path[:0] = [str(PIPELINES / "recording"), str(ROOT / "scripts")]
import cast  # noqa: E402
import recall  # noqa: E402
import recordings  # noqa: E402

BROWSERS = [
    cast.Browser("chromium", "/usr/bin/chromium", "156"),
    cast.Browser("chromium", "/old/chromium", "150"),
    cast.Browser("firefox", "/usr/bin/firefox-esr", "153"),
]
TOOLS = set(cast.T1_TOOLS)


class Cast(unittest.TestCase):
    """Who takes part."""

    def test_a_seed_is_a_cast(self):
        first, again, other = (cast.cast(seed, BROWSERS, TOOLS) for seed in (7, 7, 8))
        self.assertEqual(first, again)
        self.assertNotEqual([actor.client for actor in first], [actor.client for actor in other])

    def test_every_tier_and_kind_is_there(self):
        for seed in range(20):
            actors = cast.cast(seed, BROWSERS, TOOLS)
            with self.subTest(seed):
                self.assertEqual({actor.tier for actor in actors}, {"T1", "T2", "T3", "T4", ""})
                self.assertEqual({actor.kind for actor in actors if not actor.bot}, set(cast.PEOPLE))
                self.assertGreaterEqual(len({actor.kind for actor in actors if actor.bot}), 12)
                self.assertEqual({actor.bot for actor in actors if actor.place.startswith("nat-")}, {True, False})
                self.assertEqual(len({actor.client for actor in actors}), len(actors))

    def test_an_address_is_of_one_client_or_one_place(self):
        for seed in range(20):
            users = Counter()
            for actor in cast.cast(seed, BROWSERS, TOOLS):
                for address in actor.src_ips:
                    users[address, actor.place or actor.client] += 1
            self.assertEqual(len({address for address, _ in users}), len(users))

    def test_addresses_do_not_tell_people_from_bots(self):
        """Over many seeds both have their share of each network."""
        of = {True: Counter(), False: Counter()}
        for seed in range(60):
            for actor in cast.cast(seed, BROWSERS, TOOLS):
                if actor.addresses == 1 and not actor.place:
                    of[actor.bot][actor.src_ips[0].rpartition(":" if ":" in actor.src_ips[0] else ".")[0]] += 1
        for network in of[True]:
            shares = [of[bot][network] / sum(of[bot].values()) for bot in (True, False)]
            self.assertAlmostEqual(*shares, delta=0.05, msg=network)

    def test_a_missing_tool_is_replaced(self):
        without = TOOLS - {"java", "php"}
        used = {actor.plan["tool"] for actor in cast.cast(1, BROWSERS, without) if actor.tier == "T1"}
        self.assertFalse(used & {"java", "php"})


class Known(recordings.Recording):
    """A recording without files: a person and a bot."""

    def __init__(self):  # pylint: disable=super-init-not-called
        self.name = "made-up"
        self.clients = {
            "person": {"client": "person", "bot": False, "tier": "", "kind": "reader", "requests": 1},
            "bot": {"client": "bot", "bot": True, "tier": "T2", "kind": "scraper", "requests": 1},
        }


class Report(unittest.TestCase):
    """What is counted, for whom."""

    def test_a_group_of_both_blames_the_bot_alone(self):
        known, result = Known(), recall.Result()
        result.add(known, {"shared": {"person", "bot"}, "own": {"person"}}, {"shared": "HIGH"})
        self.assertEqual([group["what"] for group in result.groups], ["mixed", "person"])
        serious = {client["client"]: client["serious"] for client in result.clients([known])}
        self.assertEqual(serious, {"person": False, "bot": True})

    def test_levels(self):
        self.assertEqual(recall.worse("LOW", "HIGH"), "HIGH")
        self.assertEqual(recall.worse(None, "LOW"), "LOW")
        self.assertEqual(recall.worse("NORMAL", None), "NORMAL")

    def test_programs_name_themselves(self):
        for agent in (
            "",
            "curl/8.1",
            "ExampleBot/1.0",
            "Mozilla/5.0 (compatible; x; +https://x.test/)",
            "Mozilla/5.0 HeadlessChrome/1",
        ):
            self.assertTrue(recordings.names_itself(agent), agent)
        self.assertFalse(recordings.names_itself(cast.CHROME.format(150)))
        self.assertFalse(recordings.names_itself(cast.FIREFOX.format(150)))

    def test_times(self):
        self.assertEqual(recordings.nanoseconds("2026-12-01T00:00:00.5Z"), 1796083200500000000)
        self.assertEqual(recordings.nanoseconds("2026-12-01T00:00:00.123456789Z"), 1796083200123456789)
        self.assertEqual(recordings.nanoseconds(5), 5)


if __name__ == "__main__":
    unittest.main()
