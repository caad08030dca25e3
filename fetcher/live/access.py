"""Who may see the page, and who may press its buttons. Plain functions of what a request says.

Law 7: a request is believed only what another site in the same browser cannot make it say. Whoever knows the token in
the path gets a cookie that scripts cannot read and other sites cannot send; what changes something needs the token as a
header too, and the Origin of this page. The Host header must be a name that is meant: a name of somebody else's that
resolves to our address (DNS rebinding) is refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie

__all__ = ["LOCAL_NAME", "Access", "is_loopback"]

LOCAL_NAME = "localhost"


class Access:
    """The secrets of one page; ``names`` are the hosts it may be asked as, beside ``localhost`` and its own address.

    ``door`` opens it once, for a browser that is started with the address in its command line, which others can read.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self.token = secrets.token_urlsafe(32)
        self.door: str | None = None
        self.cookie = secrets.token_urlsafe(32)
        self._names = {LOCAL_NAME, *(name.strip("[]").rstrip(".").lower() for name in names)}

    def open_door(self) -> str:
        """Return a token that is good for one visit."""
        self.door = secrets.token_urlsafe(32)
        return self.door

    def enters(self, word: str) -> bool:
        """Whether the word in a path lets somebody in. The door is shut behind the first."""
        if self.door is not None and _same(word, self.door):
            self.door = None
            return True
        return _same(word, self.token)

    def is_meant(self, host: str, address: str | None) -> bool:
        """Whether a Host header means this page, which was reached at an ``address`` of ours."""
        name = _name_of(host)
        return name is not None and (name in self._names or (address is not None and _is_address(name, address)))

    def knows(self, header: str, name: str) -> bool:
        """Whether a Cookie header has our cookie ``name``."""
        try:
            found = SimpleCookie(header).get(name)
        except CookieError:
            return False
        return found is not None and _same(found.value, self.cookie)

    def may_change(self, host: str, origin: str | None, token: str | None) -> bool:
        """Whether a request that would change something is from our own page."""
        ours = {f"{scheme}://{host.lower()}" for scheme in ("http", "https")}
        return origin is not None and origin.lower() in ours and token is not None and _same(token, self.token)


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())


def _name_of(host: str) -> str | None:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        if not bracket:
            return None
    else:
        name, colon, port = host.partition(":")
        rest = colon + port
    if rest and not (rest[0] == ":" and rest[1:].isascii() and rest[1:].isdigit()):
        return None
    return name.rstrip(".").lower()


def _is_address(name: str, address: str) -> bool:
    try:
        meant, ours = ipaddress.ip_address(name), ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ours, "ipv4_mapped", None)
    return meant in (ours, mapped)
