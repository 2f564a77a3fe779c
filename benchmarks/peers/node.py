"""
One process of a run. It is started with the interpreter of a contender's environment.

The folder of this package comes last on the path: whatever the environment has goes before it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Do what the command line says."""
    sys.path.append(str(Path(__file__).parents[2]))
    from benchmarks.peers.work import Node

    node = Node.loads(sys.argv[1])
    if not node.snappy:
        sys.modules["snappy"] = None  # type: ignore[assignment]  # as if it were not installed
    module = importlib.import_module(f"benchmarks.peers.contenders.{node.module}")
    node.about = module.about(node)
    module.ROLES[node.work.kind, node.role](node)


if __name__ == "__main__":
    main()
