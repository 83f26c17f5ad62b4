"""The garbage collector of a server, in a process of its own: it is the process that is set."""

import subprocess
import sys

_PROGRAM = """
import gc, weakref
from registry.server.collector import settle

class Node: pass

settle()
assert gc.get_freeze_count() > 1000
assert gc.isenabled()
node = Node()
node.itself = node
gone = weakref.ref(node)
del node
kept = [[] for _ in range(30_000)]
assert gone() is None, "cycles of later objects are still collected"
"""


def test_what_comes_later_is_collected_and_what_was_there_is_not_looked_at() -> None:
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True, timeout=60)
