"""All hosts by their names: which are remembered, which forgotten, and what is told of them.

Law 3: what is remembered of hosts is bounded, and what nothing depends on is forgotten. Law 9: nothing here waits;
every method that needs the time takes it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from fetcher.config import HostPolicy, Limits, RetryPolicy
from fetcher.hosts.limits import join
from fetcher.hosts.state import (
    HostGroup,
    HostReport,
    HostSettings,
    HostState,
    TroubleCounts,
    configure,
    fold,
    report_of,
    rest_of,
    trouble_of,
    unfold,
)
from fetcher.urls import registrable_domain

__all__ = ["MAX_HOSTS", "MAX_REPORTED", "HostTable"]

MAX_HOSTS = 65_536  # remembered beyond those at work
MAX_FOLDED = 8 * MAX_HOSTS  # and beyond those, hosts that rest; some 110 MB
MAX_RESTING_REPORTED = 10_000  # of them that are told of: those that rest for longest
MAX_REPORTED = 1_000  # hosts in trouble that are told of


class HostTable:
    """All hosts of one ``Fetcher``. ``policies`` are those of single hosts and of domains (``*.example.com``).

    ``robots`` says that a host's robots.txt is unknown until somebody says otherwise.
    """

    def __init__(
        self,
        limits: Limits,
        retry: RetryPolicy,
        policies: Iterable[tuple[str, HostPolicy]] = (),
        *,
        robots: bool = False,
    ) -> None:
        self._limits = limits
        self._general = HostSettings(limits.per_host, limits.delay, limits.max_crawl_delay, retry)
        self._particular = {name: self._general.but(policy) for name, policy in policies}
        self._robots = robots
        self._hosts: dict[str, HostState] = {}
        self._sites: dict[str, HostGroup] = {}
        self._addresses: dict[str, HostGroup] = {}
        self._folded: dict[str, bytes] = {}  # hosts that rest, with nothing under way
        self._longest: list[str] = []  # of them
        self._marked: dict[str, HostState] = {}  # parked, or with a delay that was not configured
        self._troubled: dict[str, HostState] = {}
        self._restored: tuple[float, dict[str, float]] | None = None
        self._remembered: dict[str, float] = {}  # delays by robots.txt that an earlier run of the job learnt
        self._sweep_at = MAX_HOSTS

    def __len__(self) -> int:
        return len(self._hosts)

    def get(self, key: str, now: float) -> HostState:
        """Return what is known of the host ``key``, a blank state at first."""
        host = self._hosts.get(key)
        if host is None:
            if len(self._hosts) >= self._sweep_at:
                self._forget(now)
            host = self._hosts[key] = self._new(key)
            if self._folded and (folded := self._folded.pop(key, None)) is not None:
                unfold(host, folded)
                self._marked[key] = host
        return host

    def find(self, key: str) -> HostState | None:
        """Return what is known of the host ``key``, if anything is."""
        return self._hosts.get(key)

    def _new(self, key: str) -> HostState:
        settings = self._settings_of(key) if self._particular else self._general
        groups: tuple[HostGroup, ...] = ()
        if self._limits.per_site is not None:
            groups = (self._sites.setdefault(registrable_domain(key), HostGroup(self._limits.per_site)),)
        host = HostState(key, settings, robots_known=not self._robots, groups=groups)
        if self._restored is not None:
            self._recall(host)
        return host

    def _settings_of(self, key: str) -> HostSettings:
        """Return the most particular settings: the host's own, else those of the longest domain above it."""
        settings = self._particular.get(key)
        above = key
        while settings is None and "." in above:
            above = above.partition(".")[2]
            settings = self._particular.get(f"*.{above}")
        return settings or self._general

    def set_policy(self, name: str, policy: HostPolicy) -> list[HostState]:
        """Have what a policy says hold for a host or a domain from now on; return the hosts that it changes."""
        self._particular[name] = self._settings_of(name.replace("*.", "-.", 1)).but(policy)
        changed = [host for host in self._hosts.values() if self._settings_of(host.key) != host.settings]
        for host in changed:
            configure(host, self._settings_of(host.key))
        return changed

    def excuse(self, seconds: float) -> None:
        """Leave out of every host's account that it was not asked for so long."""
        for host in self._hosts.values():
            if host.breaker.charges:
                host.breaker.first_charge_at += seconds

    def _forget(self, now: float) -> None:
        """Law 3: drop the hosts nothing depends on; of those that refused us the newest are kept.

        Of those that rest until their time has come, little more than that time is kept.
        """
        refused = [
            key
            for key, host in self._hosts.items()
            if (host.breaker.charges or host.breaker.given_up is not None) and host.idle(now)
        ]
        remembered = {*refused[2 * MAX_REPORTED - MAX_HOSTS // 2 :], *self._troubled}
        kept: dict[str, HostState] = {}
        folded: dict[str, bytes] = {}
        for key, host in self._hosts.items():
            if key in remembered or host.on_wire or host.reserved or host.waiters:
                kept[key] = host
            elif not host.idle(now):
                folded[key] = fold(host)
        self._hosts = kept
        self._keep_folded(folded, now)
        self._sweep_at = max(MAX_HOSTS, 2 * len(self._hosts))
        self._marked = {key: host for key, host in self._marked.items() if key in self._hosts}
        alive = {id(group) for host in self._hosts.values() for group in host.groups}
        self._sites = {key: group for key, group in self._sites.items() if id(group) in alive}
        self._addresses = {key: group for key, group in self._addresses.items() if id(group) in alive}

    def _keep_folded(self, folded: dict[str, bytes], now: float) -> None:
        """Law 3: of too many those are forgotten whose time has come, then those that have rested longest."""
        candidates = {**dict(self._longest_folded()), **folded}
        self._longest = heapq.nlargest(MAX_RESTING_REPORTED, candidates, key=lambda key: rest_of(candidates[key]))
        self._folded.update(folded)
        if len(self._folded) > MAX_FOLDED:
            left = {key: rest for key, rest in self._folded.items() if rest_of(rest)[0] > now}
            self._folded = dict(islice(left.items(), max(0, len(left) - MAX_FOLDED * 3 // 4), None))

    def _longest_folded(self) -> Iterator[tuple[str, bytes]]:
        return ((key, self._folded[key]) for key in self._longest if key in self._folded)

    def locate(self, host: HostState, address: str | None) -> None:
        """Note the address a host was found at: those behind one address share ``per_address`` slots."""
        group = None
        if address is not None and self._limits.per_address is not None:
            group = self._addresses.setdefault(address, HostGroup(self._limits.per_address))
            join(host, group)
        host.locate(group)

    def set_crawl_delay(self, host: HostState, seconds: float) -> None:
        """Take over the Crawl-delay of a host's robots.txt."""
        host.set_crawl_delay(seconds)
        if host.own_delay > host.settings.delay:
            self._marked[host.key] = host
        if self._restored is not None:
            self._wait_anew(host)

    def park(self, host: HostState, now: float, seconds: float, *, dead: bool) -> None:
        """Leave a host alone for so long; one that seems ``dead`` only as far as its breaker says."""
        until = now + seconds
        if until > host.breaker.parked_until:
            self.counts(host).parked += until - max(now, host.breaker.parked_until)
            host.breaker.park(until)
            self._marked[host.key] = host
        if not dead:
            host.wait_until(until)

    # What is told of hosts in trouble

    def counts(self, host: HostState) -> TroubleCounts:
        """Return the counts of a host in trouble. Law 3: of all these hosts those with the most to tell are kept."""
        counts = host.counts
        if counts is None:
            counts = host.counts = TroubleCounts()
        if host.key not in self._troubled:
            if len(self._troubled) >= 2 * MAX_REPORTED:
                self._troubled = {host.key: host for host in self._worst()}
            self._troubled[host.key] = host
        return counts

    def _worst(self) -> list[HostState]:
        return sorted(self._troubled.values(), key=trouble_of, reverse=True)[:MAX_REPORTED]

    def troubled(self) -> list[HostReport]:
        """Return the hosts that were slow, throttled, parked or denied, the worst first, at most 1,000."""
        return [report_of(host) for host in self._worst()]

    # What a job remembers of hosts from run to run

    def parked(self, now: float) -> dict[str, float]:
        """Return the seconds each parked host must still be left alone, and those with a delay by robots.txt.

        Of a great many those are told of that rest for longest.
        """
        for key, host in list(self._marked.items()):
            if host.breaker.parked_until <= now and host.own_delay <= host.settings.delay:
                del self._marked[key]
        restored = self._restored[1] if self._restored is not None else {}  # perhaps of hosts not asked for yet
        found = {key: until - now for key, until in restored.items() if until > now}
        least = self._limits.delay
        for key, folded in self._longest_folded():
            until, delay = rest_of(folded)
            found[key] = max(until - now, delay if delay > least else 0.0)
        for key, host in self._marked.items():
            found[key] = max(host.breaker.parked_until - now, host.own_delay if host.own_delay > least else 0.0)
        return {key: seconds for key, seconds in found.items() if seconds > 0}

    def delays(self) -> dict[str, float]:
        """Return the delays by robots.txt in seconds: each is waited anew, whenever the next run is."""
        delays = {key: delay for key, delay in self._remembered.items() if key not in self._hosts}
        delays |= {key: rest_of(folded)[1] for key, folded in self._longest_folded()}
        delays |= {key: host.own_delay for key, host in self._marked.items()}
        return {key: delay for key, delay in delays.items() if delay > self._limits.delay}

    def restore(self, parked: Mapping[str, float], now: float, delays: Mapping[str, float] | None = None) -> None:
        """Take over what ``parked`` returned, less the time since, and what ``delays`` did.

        Each host waits its delay anew, for nobody wrote down when it was asked last.
        """
        self._remembered = dict(delays or {})
        self._restored = (now, {key: now + seconds for key, seconds in parked.items() if seconds > 0})
        for host in self._hosts.values():
            self._recall(host)

    def _recall(self, host: HostState) -> None:
        """Have a host keep the delay of its robots.txt until that has been read again."""
        delay = self._remembered.get(host.key, 0.0)
        if delay and not host.robots_known:
            self.set_crawl_delay(host, delay)
        else:
            self._wait_anew(host)

    def _wait_anew(self, host: HostState) -> None:
        assert self._restored is not None
        since, until = self._restored
        if host.key in until:
            host.breaker.park(until[host.key])
            self._marked[host.key] = host
        host.wait_until(max(host.breaker.parked_until, since + host.delay))
