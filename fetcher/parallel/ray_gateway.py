"""The way into a Ray cluster: a process beside the parent that is Ray's driver, and passes on what the two sides say.

::

    parent ── a socket for each worker ── gateway ── calls of an actor ── relay ── a socket ── worker
              (this machine)                         (Ray)                       (a machine of the cluster)

Ray is imported here and nowhere else, so that its threads, its signal handlers and what it prints are not the parent's,
and what it keeps of its driver (the command line above all) holds no secret: this one's has none. Law 3: of each worker
one call is on its way. Law 6: a worker's channel is closed when the worker has stopped, and not before:
either its relay has said so, or it has been told nothing for as long as its lease. Law 8: so no site has two workers.

Its standard input is a socket of the parent's: by it come the ends of the workers' sockets, and by its end, the
parent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections import Counter
from typing import Any

from fetcher import event_loop
from fetcher.parallel.channel import LENGTH, SocketChannel, open_channel
from fetcher.parallel.messages import LogLine, WorkerGone, WorkerTrouble, encode
from fetcher.parallel.ray_relay import LEASE_SECONDS, MORE, Relay, versions

__all__ = ["main"]

BEAT_SECONDS = 1.0  # for an answer, after which the worker is told once more that somebody is there
CALL_SECONDS = 8.0  # for what takes none: longer, and the way there is cut
ANSWER_SECONDS = 120.0  # for as many bytes as a batch may have
COLLECTED_BYTES = 4 * 1024 * 1024  # at once, and one batch more
MARGIN_SECONDS = 1.0  # beyond a lease: for what was on its way
FIRST_PATIENCE_SECONDS = 120.0  # for a free core in the cluster: it may be growing
LOST_SECONDS = 60.0  # in which nobody is sent to a machine where a worker was lost
TOLD_SECONDS = 15.0  # after which it is told that there is none
HELLO_SECONDS = 30.0
DELIVERED_BYTES = 64 * 1024  # at once: what is larger Ray keeps in a store, and that may be on a disk
MAX_PENDING_BYTES = 512 * 1024
PAUSE_SECONDS = 0.2
PAUSE_PER_WORKER = 0.002
"""Of a call, before it is answered: the one, or so much for each worker. It takes half a millisecond at either end."""

STORE_BYTES = 100 * 1024 * 1024  # of Ray's on this machine, where there is no cluster
CONNECT_SECONDS = 5.0
EMPTY = LENGTH.pack(0)


class RefusedError(Exception):
    """What is wrong with the cluster, or with a machine of it: in words, for the user."""


class RayRelay(Relay):
    """The actor's class, which knows the machine it is on by Ray's name for it."""

    async def hello(self) -> bytes:
        """See ``Relay.hello``."""
        import ray

        said = json.loads(await super().hello())
        return json.dumps({**said, "node": ray.get_runtime_context().get_node_id()}).encode()


class Machines:
    """Where our workers are, and which machines have been lost: Ray finds that out by half a minute of silence."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._workers: Counter[str] = Counter()
        self._lost: dict[str, float] = {}

    def take(self, node: str) -> None:
        """Note that a worker is there."""
        self._workers[node] += 1

    def leave(self, node: str, *, lost: bool) -> None:
        """Note that one is not any more; with ``lost`` the machine itself may be gone."""
        self._workers[node] -= 1
        if lost:
            self._lost[node] = time.monotonic()

    def best(self) -> str | None:
        """Return the machine with the fewest of our workers for its cores; ``None`` where Ray is to choose."""
        now = time.monotonic()
        load = {
            node["NodeID"]: (1 + self._workers[node["NodeID"]]) / node["Resources"]["CPU"]
            for node in self._ray.nodes()
            if node["Alive"]
            and node["Resources"].get("CPU")
            and now - self._lost.get(node["NodeID"], -1e9) > LOST_SECONDS
        }
        return min(load, key=load.__getitem__, default=None)


class Bridge:
    """One worker: from the parent's socket to its actor, and back."""

    def __init__(self, ray: Any, channel: SocketChannel, workers: int, machines: Machines) -> None:
        self._ray = ray
        self._channel = channel
        self._machines = machines
        self._node: str | None = None
        self._pause = max(PAUSE_SECONDS, PAUSE_PER_WORKER * workers)
        self._pending = bytearray()
        self._changed = asyncio.Condition()
        self._told = 0.0  # when it was last told something
        self._actor: Any = None
        self._epoch = 0

    async def run(self) -> None:
        """Begin, go on until one of the two is over, and close."""
        gone: WorkerGone | None = None
        try:
            first = await self._channel.receive()
            if first is None:
                return
            start = json.loads(first)
            self._epoch = start["epoch"]
            reading = asyncio.create_task(self._read())
            working = asyncio.create_task(self._work(start))
            await asyncio.wait([reading, working], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                gone = working.result()
            for task in (reading, working):
                task.cancel()
            await asyncio.gather(reading, working, return_exceptions=True)
        except RefusedError as error:
            await self._say(encode(WorkerTrouble(self._epoch, "ConfigError", f"workers: {error}")))
        finally:
            if self._node is not None:
                self._machines.leave(self._node, lost=False)
            if self._actor is not None:
                with contextlib.suppress(Exception):
                    self._ray.kill(self._actor, no_restart=True)
            if gone is not None:
                await self._say(encode(gone))
            self._channel.close()

    async def _work(self, start: dict[str, Any]) -> WorkerGone:
        """Return how the worker has ended, once it has."""
        loop = asyncio.get_running_loop()
        try:
            await self._place(start["first"])
            await self._call(self._actor.begin.remote(start["most"]), CALL_SECONDS)
            self._told = loop.time()
            return await self._pass_on()
        except (self._ray.exceptions.RayError, TimeoutError) as error:
            reason = _in_words(error)
            if self._node is not None:
                self._machines.leave(self._node, lost=True)
                self._node = None
            if self._told:
                # It may still be at work where nobody reaches it. What it has not heard of it does not do for long.
                await asyncio.sleep(max(0.0, self._told + LEASE_SECONDS + MARGIN_SECONDS - loop.time()))
            return WorkerGone(self._epoch, reason, 0)

    async def _place(self, first: bool) -> None:
        """Find a place in the cluster. Raises ``RefusedError`` where there is another version of us there."""
        hello = await self._hello(1, FIRST_PATIENCE_SECONDS) if first else None
        if hello is None:  # it shares a core with another: what a lost machine did others do now
            if self._actor is not None:
                self._ray.kill(self._actor, no_restart=True)
            hello = await self._hello(0, HELLO_SECONDS)
            if hello is None:
                raise TimeoutError("the cluster has no place for it")
        there = json.loads(hello)
        self._node = there["node"]
        self._machines.take(there["node"])
        for name, here in versions().items():
            if there.get(name) != here:
                raise RefusedError(
                    f"the machine {there['machine']} of the cluster has {name} {there.get(name)}, and this one has {here}: "
                    "have the same on all of them"
                )
        await self._log(logging.DEBUG, f"its place is {there['machine']}, process {there['pid']}")

    async def _hello(self, cores: int, patience: float) -> bytes | None:
        """Start an actor that takes so many cores; ``None`` where there has been no place for it for so long."""
        strategy: Any = "SPREAD"
        if not cores and (node := self._machines.best()) is not None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        options = {"num_cpus": cores, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 100}
        self._actor = self._ray.remote(RayRelay).options(scheduling_strategy=strategy, **options).remote()
        call = asyncio.ensure_future(_as_future(self._actor.hello.remote()))
        try:
            done, _ = await asyncio.wait([call], timeout=min(patience, TOLD_SECONDS))
            if not done and patience > TOLD_SECONDS:
                await self._log(logging.WARNING, "the cluster has no free core for it yet: it is waited for")
                done, _ = await asyncio.wait([call], timeout=patience - TOLD_SECONDS)
            if not done:
                if cores:
                    await self._log(logging.WARNING, "the cluster has no free core for it: it shares one with another")
                return None
            return bytes(call.result())
        except self._ray.exceptions.RayError as error:
            if "ModuleNotFoundError" in str(error) or "ImportError" in str(error):
                raise RefusedError(
                    f"a machine of the cluster has no fetcher {versions()['fetcher']}: install it on all of them"
                ) from None
            raise
        finally:
            call.cancel()

    async def _read(self) -> None:
        """Take in what the parent says, until it is gone or wants the worker's end."""
        while (batch := await self._channel.receive()) is not None:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._pending) < MAX_PENDING_BYTES)
                self._pending += LENGTH.pack(len(batch))
                self._pending += batch
                self._changed.notify_all()

    async def _pass_on(self) -> WorkerGone:
        """Say what there is to say, and hear what there is to hear, call by call, until the worker has ended."""
        while True:
            async with self._changed:
                data = bytes(self._pending[:DELIVERED_BYTES]) or EMPTY
                del self._pending[:DELIVERED_BYTES]
                self._changed.notify_all()
            whole = not self._pending
            most = 0 if self._channel.is_behind else COLLECTED_BYTES
            pause = self._pause if whole else 0.0
            call = asyncio.ensure_future(self._told_by(self._actor.exchange.remote(data, pause, most), ANSWER_SECONDS))
            try:
                while not (await asyncio.wait([call], timeout=BEAT_SECONDS + pause))[0]:
                    if whole:  # a large answer takes its time, and the lease goes on
                        await self._told_by(self._actor.deliver.remote(EMPTY), CALL_SECONDS)
                answer = memoryview(call.result())
            finally:
                call.cancel()
            if answer[:1] != MORE:
                over = json.loads(bytes(answer[1:]))
                return WorkerGone(self._epoch, over["reason"], over["row"])
            if len(answer) > 1:
                self._channel.pass_on(bytes(answer[1:]))

    async def _told_by(self, reference: Any, seconds: float) -> Any:
        """Note that the worker is told something now, and wait for the answer."""
        self._told = asyncio.get_running_loop().time()
        return await self._call(reference, seconds)

    async def _call(self, reference: Any, seconds: float) -> Any:
        return await asyncio.wait_for(_as_future(reference), seconds)

    async def _say(self, batch: bytes | bytearray) -> None:
        with contextlib.suppress(ConnectionError):
            await self._channel.send(batch)

    async def _log(self, level: int, text: str) -> None:
        await self._say(encode(LogLine("fetcher.workers", level, f"a worker of Ray's: {text}")))


async def _as_future(reference: Any) -> Any:
    return await reference


def _in_words(error: BaseException) -> str:
    """Return in one line what Ray or the clock says of a lost actor."""
    if isinstance(error, TimeoutError):
        return str(error) or "it is not heard of any more"
    name = type(error).__name__
    if name.startswith("Actor"):  # of its many lines none says more, where a machine is gone
        return "its machine is not reached any more" if "Unavailable" in name else "its actor has died"
    return f"Ray: {' '.join(str(error).split())[:200] or name}"


# The cluster


def _connect(ray: Any, address: str, workers: int) -> dict[str, Any]:
    """Be a driver of the cluster at ``address``, or of one on this machine alone. Raises ``RefusedError``."""
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
    where = address or os.environ.get("RAY_ADDRESS", "")
    if "://" in where:
        raise RefusedError(
            f"ray-address: {where!r} is no HOST:PORT and not auto: a driver is on a machine of the cluster"
        )
    if where and where not in ("auto", "local"):
        _probe(where)
    try:
        if where in ("", "local"):
            cores = max(workers, os.cpu_count() or 1)
            here = {"num_cpus": cores, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            ray.init(address="local", object_store_memory=STORE_BYTES, **here, **quiet)
        else:
            ray.init(address=where, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RefusedError(_why_no_cluster(where, str(error))) from None
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {"cores": int(ray.cluster_resources().get("CPU", 0)), "machines": max(1, len(nodes))}


def _probe(address: str) -> None:
    """See that anybody listens there: Ray itself would end the process some time after it has found out."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise RefusedError(f"ray-address: {address!r} is no HOST:PORT and not auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
        raise RefusedError(
            f"ray-address: nobody answers at {address} ({reason}): 'ray start --head' starts a cluster"
        ) from None


def _why_no_cluster(address: str, said: str) -> str:
    where = f"ray-address: {address}" if address else "ray"
    words = " ".join(said.split())
    if "ersion mismatch" in words:
        return f"{where}: another version is at work there: {words[:300]}"
    if address == "auto":
        return f"{where}: no cluster is found on this machine: 'ray start --head' starts one"
    return f"{where}: {words[:300] or 'no cluster is to be had'}"


class Gateway:
    """All workers of a parent."""

    def __init__(self, ray: Any, control: socket.socket, workers: int) -> None:
        self._ray = ray
        self._control = control
        self._workers = workers
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._machines = Machines(ray)

    async def run(self) -> None:
        """Take in the workers' sockets until the parent is gone; then nobody of them is left."""
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control, self._take)
        await self._over.wait()
        loop.remove_reader(self._control)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self) -> None:
        try:
            word, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            word, descriptors = b"", []
        if not word:
            self._over.set()
            return
        for descriptor in descriptors:
            task = asyncio.get_running_loop().create_task(self._serve(socket.socket(fileno=descriptor)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, end: socket.socket) -> None:
        channel = await open_channel(end, most=1 << 40)
        await Bridge(self._ray, channel, self._workers, self._machines).run()


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    text = json.dumps(message).encode()
    with contextlib.suppress(OSError):
        control.sendall(LENGTH.pack(len(text)) + text)


def main() -> None:
    """Connect to the cluster that the first word names, for as many workers as the second says; tell how that went."""
    address, workers = sys.argv[1], int(sys.argv[2])
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for name in [name for name in os.environ if name.startswith("FETCHER_")]:
        del os.environ[name]  # what is in them may be a secret, and Ray's processes inherit ours
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        _tell(control, {"missing": True})
        return
    try:
        found = _connect(ray, address, workers)
    except RefusedError as error:
        _tell(control, {"refused": str(error)})
        return
    _tell(control, found)
    try:
        event_loop.run(Gateway(ray, control, workers or found["cores"]).run)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    from fetcher.parallel.ray_gateway import main as named  # the actor's class must go by a name that others find

    named()
