"""Network namespaces of a test: its own names, and nothing leaves the machine."""

import os
import shutil
import subprocess
import unittest


def joined(case: unittest.TestCase, *ends: tuple[str, str, str], needs: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Two namespaces and a cable between them: each end is a name, a device and its address. They are removed with the
    test, which is skipped where they cannot be made or a program that it needs is not installed.
    """
    names = made(case, *(end[0] for end in ends), needs=needs)
    cable(*((name, *end[1:]) for name, end in zip(names, ends, strict=True)))
    return names


def made(case: unittest.TestCase, *kinds: str, needs: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Namespaces without cables, named by what they are; removed and skipped as with `joined`."""
    reason = why_not(needs)
    if reason:
        case.skipTest(reason)
    names = tuple(f"ja4-{kind}-{os.getpid()}" for kind in kinds)
    for name in names:
        ip("netns", "add", name)
        case.addCleanup(ip, "netns", "delete", name)
        ip("-n", name, "link", "set", "lo", "up")
    return names


def cable(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Joins two namespaces: each end is a namespace, a new device in it and its address."""
    ip("link", "add", one[1], "netns", one[0], "type", "veth", "peer", "name", other[1], "netns", other[0])
    for name, device, address in (one, other):
        ip("-n", name, "address", "add", f"{address}/24", "dev", device)
        ip("-n", name, "link", "set", device, "up")


def ip(*arguments: str) -> None:
    """Runs ip(8)."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def why_not(needs: tuple[str, ...] = ()) -> str:
    """Why there can be no namespaces here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    missing = [program for program in ("ip", *needs) if not shutil.which(program)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    name = f"ja4-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=False)
    return ""
