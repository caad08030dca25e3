"""Who may see the live page and press its buttons, by what a request says."""

from __future__ import annotations

import pytest

from fetcher.errors import ConfigError
from fetcher.live.access import Access, is_loopback
from fetcher.live.place import LivePlace


@pytest.mark.parametrize(
    ("host", "address", "meant"),
    [
        ("127.0.0.1:8080", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost:9000", "127.0.0.1", True),
        ("LOCALHOST.:9000", "127.0.0.1", True),
        ("crawler.example", "10.0.0.1", True),
        ("crawler.example:443", "10.0.0.1", True),
        ("[::1]:8080", "::1", True),
        ("[0:0:0:0:0:0:0:1]", "::1", True),
        ("10.0.0.1:80", "::ffff:10.0.0.1", True),
        ("127.0.0.2:8080", "127.0.0.1", False),
        ("rebound.example:8080", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("localhost:80@evil.example", "127.0.0.1", False),
        ("localhost:80:80", "127.0.0.1", False),
        ("localhost:8o", "127.0.0.1", False),
        ("[::1", "::1", False),
        ("", "127.0.0.1", False),
        ("127.0.0.1", None, False),
    ],
)
def test_a_host_header_must_mean_this_page(host: str, address: str | None, meant: bool) -> None:
    assert Access(["crawler.example"]).is_meant(host, address) is meant


def test_the_token_opens_and_nothing_near_it() -> None:
    access = Access()
    assert access.enters(access.token)
    for word in ("", access.token[:-1], access.token + "x", access.cookie, "\udcff", "ü"):
        assert not access.enters(word)
    assert Access().token != access.token
    assert len(access.token) >= 43


def test_the_door_opens_once() -> None:
    access = Access()
    door = access.open_door()
    assert door != access.token
    assert access.enters(door)
    assert not access.enters(door)
    assert access.enters(access.token)


def test_the_cookie_is_known_by_its_name() -> None:
    access = Access()
    assert access.knows(f"a=b; live-1={access.cookie}; c=d", "live-1")
    for header in ("", f"live-2={access.cookie}", f"live-1={access.token}", "live-1=", "live-1", "=;;=\x00"):
        assert not access.knows(header, "live-1")


def test_a_button_needs_our_own_page() -> None:
    access = Access()
    host = "localhost:8080"
    assert access.may_change(host, "http://localhost:8080", access.token)
    assert access.may_change(host, "https://localhost:8080", access.token)
    for origin in (None, "null", "http://localhost:9999", "http://evil.example", "http://localhost:8080.evil.example"):
        assert not access.may_change(host, origin, access.token)
    for token in (None, "", access.cookie):
        assert not access.may_change(host, "http://localhost:8080", token)


def test_loopback_is_what_nobody_else_reaches() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0", "nonsense"]))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", LivePlace(port=8080)),
        ("0", LivePlace()),
        (":8080", LivePlace(port=8080)),
        ("0.0.0.0:8080", LivePlace("0.0.0.0", 8080)),
        ("[::1]:8080", LivePlace("::1", 8080)),
        ("localhost:1", LivePlace("localhost", 1)),
    ],
)
def test_a_place_is_read(text: str, place: LivePlace) -> None:
    assert LivePlace.of(text) == place


@pytest.mark.parametrize("text", ["", "x", "8080x", "-1", "65536", "a:b", "http://x:1", "u@h:1", "٣", "a\0b:1"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no port|no \[HOST:\]PORT"):
        LivePlace.of(text)


def test_a_place_that_cannot_be_had_is_refused() -> None:
    with LivePlace().listen() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"live-at: cannot listen on 127\.0\.0\.1:{port}: .*; give another port"):
            LivePlace(port=port).listen()
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0"):
        LivePlace("192.0.2.1").listen()
