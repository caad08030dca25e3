"""What is known of every host: the one truth that admission, pacing and patience are decided from.

Law 3: what is remembered of hosts is bounded, and what nothing depends on is forgotten. Law 5: a host's trouble
stays its own. Law 9: nothing here waits; every method that needs the time takes it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from fetcher.config import HostPolicy, Limits, RetryPolicy
from fetcher.hosts.health import HostReport, Network, Record
from fetcher.hosts.host import Group, Host, Terms
from fetcher.hosts.slots import CATCH_UP, SHORTLY, Slots
from fetcher.urls import registrable_domain

__all__ = ["CATCH_UP", "CHARGES", "KEPT", "REPORTED", "SHORTLY", "Host", "Hosts"]

CHARGES = 20  # without one success in between
KEPT = 65_536  # hosts remembered beyond those at work
FOLDED = 8 * KEPT  # and beyond those, hosts that rest; some 110 MB
LONGEST = 10_000  # of them that are told of: those that rest for longest
REPORTED = 1_000  # hosts in trouble that are told of

W = TypeVar("W")


class Hosts(Slots[W]):
    """All hosts of one ``Fetcher``. ``policies`` are those of single hosts and of domains (``*.example.com``).

    ``robots`` says that a host's robots.txt is unknown until ``know_robots`` is told.
    """

    def __init__(
        self,
        limits: Limits,
        retry: RetryPolicy,
        policies: Iterable[tuple[str, HostPolicy]] = (),
        *,
        robots: bool = False,
    ) -> None:
        super().__init__(limits)
        self.network = Network(retry.host_patience)
        self._general = Terms(limits.per_host, limits.delay, limits.max_crawl_delay, retry)
        self._terms = {name: self._general.but(policy) for name, policy in policies}
        self._robots = robots
        self._hosts: dict[str, Host[W]] = {}
        self._sites: dict[str, Group] = {}
        self._addresses: dict[str, Group] = {}
        self._folded: dict[str, bytes] = {}  # hosts that rest, with nothing under way
        self._longest: list[str] = []  # of them
        self._marked: dict[str, Host[W]] = {}  # parked, or with a delay that was not configured
        self._troubled: dict[str, Host[W]] = {}
        self._restored: tuple[float, dict[str, float]] | None = None
        self._remembered: dict[str, float] = {}  # delays by robots.txt that an earlier run of the job learnt
        self._sweep_at = KEPT

    def __len__(self) -> int:
        return len(self._hosts)

    def get(self, key: str, now: float) -> Host[W]:
        """Return what is known of the host ``key``, a blank sheet at first."""
        host = self._hosts.get(key)
        if host is None:
            if len(self._hosts) >= self._sweep_at:
                self._forget(now)
            host = self._hosts[key] = self._new(key)
            if self._folded and (sheet := self._folded.pop(key, None)) is not None:
                host.unfold(sheet)
                self._marked[key] = host
        return host

    def find(self, key: str) -> Host[W] | None:
        """Return what is known of the host ``key``, if anything is."""
        return self._hosts.get(key)

    def _new(self, key: str) -> Host[W]:
        terms = self._terms_of(key) if self._terms else self._general
        host: Host[W] = Host(key, terms.most, terms.delay, terms.retry)
        host.robots_known = not self._robots
        if self.limits.per_site is not None:
            site = registrable_domain(key)
            host.groups = (self._sites.setdefault(site, Group(self.limits.per_site)),)
        if self._restored is not None:
            self._recall(host)
        return host

    def _terms_of(self, key: str) -> Terms:
        """Return the most particular terms: the host's own, else those of the longest domain above it."""
        terms = self._terms.get(key)
        above = key
        while terms is None and "." in above:
            above = above.partition(".")[2]
            terms = self._terms.get(f"*.{above}")
        return terms or self._general

    def _forget(self, now: float) -> None:
        """Law 3: drop the hosts nothing depends on; of those that refused us the newest are kept.

        Of those that rest until their time has come, little more than that time is kept.
        """
        refused = [key for key, host in self._hosts.items() if (host.charges or host.given_up) and host.idle(now)]
        remembered = {*refused[2 * REPORTED - KEPT // 2 :], *self._troubled}
        kept: dict[str, Host[W]] = {}
        folded: dict[str, bytes] = {}
        for key, host in self._hosts.items():
            if key in remembered or host.on_wire or host.promised or host.waiters:
                kept[key] = host
            elif not host.idle(now):
                folded[key] = host.fold()
        self._hosts = kept
        self._keep_folded(folded, now)
        self._sweep_at = max(KEPT, 2 * len(self._hosts))
        self._marked = {key: host for key, host in self._marked.items() if key in self._hosts}
        alive = {id(group) for host in self._hosts.values() for group in host.groups}
        self._sites = {key: group for key, group in self._sites.items() if id(group) in alive}
        self._addresses = {key: group for key, group in self._addresses.items() if id(group) in alive}

    def _keep_folded(self, folded: dict[str, bytes], now: float) -> None:
        """Law 3: of too many those are forgotten whose time has come, then those that have rested longest."""
        candidates = {**dict(self._longest_folded()), **folded}
        self._longest = heapq.nlargest(LONGEST, candidates, key=lambda key: Host.rests(candidates[key]))
        self._folded.update(folded)
        if len(self._folded) > FOLDED:
            left = {key: sheet for key, sheet in self._folded.items() if Host.rests(sheet)[0] > now}
            self._folded = dict(islice(left.items(), max(0, len(left) - FOLDED * 3 // 4), None))

    def locate(self, host: Host[W], address: str | None) -> None:
        """Note the address a host was found at: those behind one address share ``per_address`` slots."""
        host.located = True
        if address is None or self.limits.per_address is None:
            return
        group = self._addresses.setdefault(address, Group(self.limits.per_address))
        group.on_wire += host.on_wire
        group.ahead += host.promised + len(host.waiters)
        host.groups = (*host.groups, group)

    # What its robots.txt says

    def know_robots(self, host: Host[W], *, known: bool = True) -> None:
        """Note whether the rules of a host are known: until then it is promised one row."""
        host.robots_known = known
        if known:
            host.rests_until = 0.0  # what they say of a host that is dead ends its rows at once

    def set_delay(self, host: Host[W], seconds: float) -> None:
        """Take over a Crawl-delay, up to ``max_crawl_delay``; a larger ``delay`` wins. Counts from the last start."""
        terms = self._terms_of(host.key)
        host.own_delay = max(terms.delay, min(seconds, terms.max_crawl_delay))
        host.adjust()
        if host.own_delay > terms.delay:
            self._marked[host.key] = host
        if host.started:
            host.not_before = max(host.not_before, max(host.started, host.sent_at) + host.delay)
        if self._restored is not None:
            self._wait_anew(host)

    # Health: whose fault was it?

    def charge(
        self, host: Host[W], now: float, retry_after: float | None, *, dead: bool = False, lasted: float = 0.0
    ) -> None:
        """Park a host that will not serve us now, or give it up.

        Without ``Retry-After``, or with one of 0, the pause doubles from ``backoff``. A host without one success in
        twenty charges or in ``host_patience`` seconds, or that asks for more than ``max_retry_after``, is given up.
        Answers to what was sent before the parking count for nothing new. One that seems ``dead``, after an exchange
        that ``lasted`` so many seconds, rests only from rows that can wait elsewhere.
        """
        if host.given_up is not None:
            return
        self.record(host)
        retry = host.retry
        if retry_after is not None and retry_after > retry.max_retry_after:
            wish = f"{host.key} asks to wait {math.ceil(retry_after)} s"
            host.given_up = f"{wish}, max-retry-after is {retry.max_retry_after:g} s"
            return
        if now >= host.parked_until:
            host.charges += 1
            if host.charges == 1:
                host.struck_at = now
            refused, verb = now - host.struck_at, "did not answer" if dead else "refused"
            if host.charges >= CHARGES:
                host.given_up = f"{host.key} {verb} {host.charges} times without one success"
            elif refused >= retry.host_patience:
                host.given_up = f"{host.key} {verb} for {refused:.0f} s, host-patience is {retry.host_patience:g} s"
        if dead:
            pause = host.rest(now, lasted)
            host.rests_until = max(host.rests_until, now + pause)
        else:
            pause = retry_after or min(retry.backoff * 2.0 ** (host.charges - 1), retry.max_backoff)
        if retry_after:
            host.asked_until = max(host.asked_until, now + retry_after)
        self._park(host, now, pause, dead=dead)

    def suspect(self, host: Host[W], *, suspect: bool) -> None:
        """Take a host for one that may be dead, or no longer."""
        if host.suspect is not suspect:
            host.suspect = suspect
            held = host.on_wire + host.promised
            self.suspected += held if suspect else -held

    def _park(self, host: Host[W], now: float, seconds: float, *, dead: bool) -> None:
        until = now + seconds
        if until > host.parked_until:
            self.record(host).parked += until - max(now, host.parked_until)
            host.parked_until = until
            self._marked[host.key] = host
        if not dead:
            host.not_before = max(host.not_before, until)

    def record(self, host: Host[W]) -> Record:
        """Return the counts of a host in trouble. Law 3: of all these hosts those with the most to tell are kept."""
        if host.record is None:
            host.record = Record()
        if host.key not in self._troubled:
            if len(self._troubled) >= 2 * REPORTED:
                self._troubled = {host.key: host for host in self._worst()}
            self._troubled[host.key] = host
        return host.record

    def _worst(self) -> list[Host[W]]:
        return sorted(self._troubled.values(), key=lambda host: host.weight, reverse=True)[:REPORTED]

    def troubled(self) -> list[HostReport]:
        """Return the hosts that were slow, throttled, parked or denied, the worst first, at most 1,000."""
        return [host.report() for host in self._worst()]

    # What a job remembers of hosts from run to run

    def parked(self, now: float) -> dict[str, float]:
        """Return the seconds each parked host must still be left alone, and those with a delay by robots.txt.

        Of a great many those are told of that rest for longest.
        """
        for key, host in list(self._marked.items()):
            if host.parked_until <= now and host.own_delay <= self._terms_of(key).delay:
                del self._marked[key]
        restored = self._restored[1] if self._restored is not None else {}  # perhaps of hosts not asked for yet
        found = {key: until - now for key, until in restored.items() if until > now}
        for key, sheet in self._longest_folded():
            until, delay = Host.rests(sheet)
            found[key] = max(until - now, delay if delay > self.limits.delay else 0.0)
        for key, host in self._marked.items():
            found[key] = max(host.parked_until - now, host.own_delay if host.own_delay > self.limits.delay else 0.0)
        return {key: seconds for key, seconds in found.items() if seconds > 0}

    def _longest_folded(self) -> Iterator[tuple[str, bytes]]:
        return ((key, self._folded[key]) for key in self._longest if key in self._folded)

    def delays(self) -> dict[str, float]:
        """Return the delays by robots.txt in seconds: each is waited anew, whenever the next run is."""
        delays = {key: delay for key, delay in self._remembered.items() if key not in self._hosts}
        delays |= {key: Host.rests(sheet)[1] for key, sheet in self._longest_folded()}
        delays |= {key: host.own_delay for key, host in self._marked.items()}
        return {key: delay for key, delay in delays.items() if delay > self.limits.delay}

    def restore(self, parked: Mapping[str, float], now: float, delays: Mapping[str, float] | None = None) -> None:
        """Take over what ``parked`` returned, less the time since, and what ``delays`` did.

        Each host waits its delay anew, for nobody wrote down when it was asked last.
        """
        self._remembered = dict(delays or {})
        self._restored = (now, {key: now + seconds for key, seconds in parked.items() if seconds > 0})
        for host in self._hosts.values():
            self._recall(host)

    def _recall(self, host: Host[W]) -> None:
        """Have a host keep the delay of its robots.txt until that has been read again."""
        delay = self._remembered.get(host.key, 0.0)
        if delay and not host.robots_known:
            host.asked_delay = delay
            self.set_delay(host, delay)
        else:
            self._wait_anew(host)

    def _wait_anew(self, host: Host[W]) -> None:
        assert self._restored is not None
        since, until = self._restored
        if host.key in until:
            host.parked_until = max(host.parked_until, until[host.key])
            self._marked[host.key] = host
        host.not_before = max(host.not_before, host.parked_until, since + host.delay)
