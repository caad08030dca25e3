"""Which links of a page are to be followed: found where the page is parsed, by rules that need nothing but the page.

Laws: what is found in one page is bounded, whatever it names (3); a link is parsed before it is believed, and a user
name in it is dropped (7); what says nofollow, for itself or for all of its page, is not followed (8).
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from fetcher.config.options import url_pattern
from fetcher.config.policies import Follow, Within
from fetcher.errors import ConfigError, InvalidURL
from fetcher.model import Discovery, FoundLinks
from fetcher.page.denial import denied_by
from fetcher.page.url_attributes import PageURLs
from fetcher.urls import MAX_URL, Target, parse, registrable_domain

__all__ = ["LinkSearch", "check_rules", "find_links"]

LINKS = "a[href],area[href]"
NOFOLLOW = frozenset({"nofollow"})
LINK_CHARACTERS = 64  # that a link counts as beside those of its URL: what a text takes in memory
MIN_CHARACTERS = 128 * 1024  # of the links of one page, whatever its size
MAX_CHARACTERS = 8 * 1024 * 1024
CHARACTERS_A_BYTE = 8  # in between, by the size of the page: a long base makes much of few bytes
MAX_ROBOTS_METAS = 16


class LinkSearch(msgspec.Struct, frozen=True, array_like=True):
    """What is looked for in one page: by which ``rules``, for a row that began at ``base``; ``token`` is our name."""

    rules: Follow
    base: str
    token: str

    @classmethod
    def of(cls, rules: Follow, discovery: Discovery | None, token: str) -> LinkSearch | None:
        """Return the search for a row, ``None`` where its links are not followed."""
        if discovery is None or not discovery.leads:
            return None
        return cls(rules, discovery.base, token)


def check_rules(rules: Follow) -> None:
    """Raise ``ConfigError`` where the selector is none, or looks for what has no ``href``."""
    if rules.css is None:
        return
    try:
        LexborHTMLParser("<p>").css(rules.css)
    except SelectolaxError:
        raise ConfigError(f"follow-css: {rules.css!r} is no CSS selector") from None


def find_links(tree: LexborHTMLParser, url: str, size: int, said: str | None, search: LinkSearch) -> FoundLinks:
    """Return what is to be followed of a page at ``url`` whose body has ``size`` bytes.

    ``said`` is what the page says to robots in its headers and metas. Those for our name alone are looked for here.
    """
    rules = search.rules
    scope = _scope(rules.within, search.base)
    if not scope.has(url):
        return FoundLinks(outside=True)
    if _says_nofollow(tree, said, search.token):
        return FoundLinks()
    base = PageURLs(url, lambda: tree.css_first("base[href]")).base
    left = min(MAX_CHARACTERS, max(MIN_CHARACTERS, CHARACTERS_A_BYTE * size))
    wanted = _patterns(rules.include, rules.exclude)
    known: set[str] = set()
    found: dict[str, None] = {}
    dropped = 0
    for node in tree.css(rules.css or LINKS):
        reference = _reference_of(node)
        if reference is None or reference in known:
            continue
        if len(reference) > MAX_URL or left < 0:
            dropped += 1
            continue
        known.add(reference)
        link = _absolute(base.resolve(reference))
        if link is None or link in found or not scope.has(link) or not wanted.takes(link):
            left -= len(reference)  # it is remembered
            continue
        left -= len(link) + LINK_CHARACTERS
        if left < 0:
            dropped += 1
        else:
            found[link] = None
    return FoundLinks("\n".join(found), dropped)


def _reference_of(node: LexborNode) -> str | None:
    """Return what a link says, ``None`` where it says nothing or is not to be followed."""
    attributes = node.attributes
    reference = attributes.get("href")
    if not reference or reference[:1] == "#":
        return None
    relation = attributes.get("rel")
    return None if relation and "nofollow" in relation.lower().split() else reference


def _absolute(url: str | None) -> str | None:
    """Return a URL as a row has it: without fragment and user name. ``None`` for what can be no row."""
    if url is None or not url.startswith(("http://", "https://")):
        return None
    try:
        return parse(url.partition("#")[0]).wire
    except InvalidURL:
        return None


def _says_nofollow(tree: LexborHTMLParser, said: str | None, token: str) -> bool:
    if said and denied_by(said, NOFOLLOW, token) is not None:
        return True
    if not re.fullmatch(r"[A-Za-z_-]+", token):
        return False
    metas = tree.css(f'meta[name="{token}" i]')[:MAX_ROBOTS_METAS]
    return any(denied_by(meta.attributes.get("content") or "", NOFOLLOW, token) is not None for meta in metas)


class Scope:
    """Where links may lead that began at ``base``."""

    def __init__(self, within: Within, base: str) -> None:
        target = parse(base)
        self._within = within
        self._host = target.host
        self._site = registrable_domain(target.host) if within == "site" else ""
        self._origin = base[: base.find("/", len(target.scheme) + 3) + 1]
        self._folder = _path_of(target).rpartition("/")[0] + "/"

    def has(self, url: str) -> bool:
        """Say whether a URL, as the standard serialises it, is within."""
        if url.startswith(self._origin) and self._within != "prefix":
            return True
        try:
            target = parse(url)
        except InvalidURL:
            return False
        if self._within == "site":
            return target.host == self._host or registrable_domain(target.host) == self._site
        if target.host != self._host:
            return False
        return self._within == "host" or _path_of(target).startswith(self._folder)


def _path_of(target: Target) -> str:
    rest = target.wire.partition("://")[2]
    return "/" + rest.partition("?")[0].partition("/")[2]


class WantedURLs:
    """The patterns of the URLs that are wanted."""

    def __init__(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> None:
        self._include = [re.compile(url_pattern(pattern)) for pattern in include]
        self._exclude = [re.compile(url_pattern(pattern)) for pattern in exclude]

    def takes(self, url: str) -> bool:
        """Say whether a URL is wanted: what is excluded is not, whatever else it is."""
        if any(pattern.fullmatch(url) for pattern in self._exclude):
            return False
        return not self._include or any(pattern.fullmatch(url) for pattern in self._include)


@lru_cache(maxsize=1_024)
def _scope(within: Within, base: str) -> Scope:
    return Scope(within, base)


@lru_cache(maxsize=64)
def _patterns(include: tuple[str, ...], exclude: tuple[str, ...]) -> WantedURLs:
    return WantedURLs(include, exclude)
