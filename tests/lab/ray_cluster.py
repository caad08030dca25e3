"""Owns a Ray cluster of two nodes on this machine, in processes of its own, of which one may be struck down.

Run as a program it starts as many nodes as its first word says, prints the address, and does what its standard input
says, a word a line, until that ends: ``kill`` ends all processes of the second node by SIGKILL, ``remove`` has Ray take
it away without grace, ``add`` has another.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["HAS_RAY", "LoopbackCluster", "children_of", "cluster"]

ROOT = Path(__file__).resolve().parents[2]
HAS_RAY = importlib.util.find_spec("ray") is not None
NODE: dict[str, Any] = {
    "num_cpus": 2,
    "object_store_memory": 100 * 1024 * 1024,
    "include_dashboard": False,
    "node_ip_address": "127.0.0.2",  # 127.0.0.1 Ray would take for another of our addresses
}


class LoopbackCluster:
    """The running cluster, by its ``address`` and the pids of its first node's and its second node's raylet."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        told = self._answer()
        self.address: str = told["address"]
        self.raylets: list[int] = told["raylets"]
        self.logs = Path(told["logs"])
        self.gcs: int = told["gcs"]

    def order(self, word: str) -> list[int]:
        """Have something done; return the pids of the nodes' raylets behind it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self.raylets = self._answer()["raylets"]
        return self.raylets

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise AssertionError("the cluster has ended")


@contextmanager
def cluster(first: Path | None = None, *, nodes: int = 2) -> Iterator[LoopbackCluster]:
    """Have a cluster of so many nodes until the block is left. Modules in the folder ``first`` are found before ours there."""
    way = os.pathsep.join([*([str(first)] if first is not None else []), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.ray_cluster", str(nodes)],
        cwd=ROOT if first is None else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": way},
        text=True,
    )
    with process:
        try:
            yield LoopbackCluster(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def children_of(pid: int) -> list[int]:
    """Return a process's children and theirs, by what the system says now."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(name))
    found, left = [], [pid]
    while left:
        for child in parents.get(left.pop(), ()):
            found.append(child)
            left.append(child)
    return found


def _raylet_of(node: Any) -> int:
    (found,) = node.all_processes["raylet"]
    return int(found.process.pid)


def main() -> None:
    """Run a cluster."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE)
    nodes = [made.head_node, *(made.add_node(**NODE) for _ in range(1, int(sys.argv[1])))]

    def tell() -> None:
        (gcs,) = made.head_node.all_processes["gcs_server"]
        raylets = [_raylet_of(node) for node in nodes]
        told = {"address": made.address, "raylets": raylets, "logs": made.head_node.get_logs_dir_path()}
        print(json.dumps({**told, "gcs": gcs.process.pid}), flush=True)

    tell()
    for word in sys.stdin:
        match word.strip():
            case "kill":
                struck = nodes.pop()
                raylet = _raylet_of(struck)
                for pid in [raylet, *children_of(raylet)]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            case "remove":
                made.remove_node(nodes.pop(), allow_graceful=False)
            case "add":
                nodes.append(made.add_node(**NODE))
        tell()
    made.shutdown()


if __name__ == "__main__":
    main()
