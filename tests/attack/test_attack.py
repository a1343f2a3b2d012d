"""The small part of the attacks; `make attack` runs the whole collection."""

import io
import unittest

from tests.attack.main import AREAS, main


class Attack(unittest.TestCase):
    """Each area, for some seconds."""


def _area(area: str) -> None:
    def test(self: Attack) -> None:
        out = io.StringIO()
        self.assertEqual(main(["--quick", "--only", area], out), 0, out.getvalue())
    test.__doc__ = f"Nothing of `{area}` gets through."
    setattr(Attack, f"test_{area}", test)


for name in AREAS:
    _area(name)
