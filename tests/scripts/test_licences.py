"""scripts/licences.py: expressions, and what counts as a violation."""

import sys
import unittest

from tests.support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from licences import accepted, violations  # noqa: E402  (the path is set above)

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
POLICY = {
    "licenses": {"allow": ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]},
    "sources": {"allow-registry": [CRATES_IO.removeprefix("registry+")]},
    "bans": {"skip": []},
}


def package(name="a", version="1.0.0", licence="MIT", source=CRATES_IO):
    """A package as `cargo metadata` prints it."""
    return {"name": name, "version": version, "license": licence, "source": source}


class Licences(unittest.TestCase):
    """The check itself."""

    def test_expressions(self):
        """SPDX and the older form with a slash; AND binds tighter than OR."""
        allow = set(POLICY["licenses"]["allow"])
        for text in ("MIT", "MIT OR GPL-3.0", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "MIT AND Apache-2.0",
                     "(GPL-3.0 OR MIT) AND MIT", "Apache-2.0 WITH LLVM-exception", "GPL-3.0 AND BSD-2-Clause OR MIT"):
            self.assertTrue(accepted(text, allow), text)
        for text in ("GPL-3.0", "MIT AND GPL-3.0", "MIT AND (GPL-3.0 OR BSD-2-Clause)", "MIT WITH GPL-exception",
                     "GPL-2.0+"):
            self.assertFalse(accepted(text, allow), text)
        for text in ("", "MIT OR", "MIT Apache-2.0", "(MIT", "MIT; GPL-3.0", "AND MIT"):
            with self.assertRaises(ValueError, msg=text):
                accepted(text, allow)

    def test_violations(self):
        """A licence, none at all, another registry, a second version, a skip that is no longer needed."""
        self.assertEqual(violations([package(), package(source=None, licence=None)], POLICY), [])
        for bad in (package(licence="GPL-3.0"), package(licence=None), package(source="git+https://example.test/a")):
            self.assertEqual(len(violations([bad], POLICY)), 1, bad)
        two = [package(), package(version="2.0.0")]
        self.assertEqual(len(violations(two, POLICY)), 1)
        skipping = POLICY | {"bans": {"skip": [{"name": "a"}]}}
        self.assertEqual(violations(two, skipping), [])
        self.assertEqual(len(violations(two[:1], skipping)), 1)
