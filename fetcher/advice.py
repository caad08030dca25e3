"""What each error code means, and what a person can do about it: one text a code, for a report as for help.

The codes are those of ``errors.py``; a test sees that none is missing. The texts are plain, and end in a full stop.
"""

from __future__ import annotations

import msgspec

from fetcher.errors import RETRYABLE

__all__ = ["ADVICE", "Advice", "advice_for"]


class Advice(msgspec.Struct, frozen=True):
    """What a code means, and what to ``do`` about it."""

    meaning: str
    do: str


_LATER = "It may pass by itself: take the rows up again later with --retry-failed."

ADVICE: dict[str, Advice] = {
    "invalid_url": Advice(
        "The row is no http or https URL.",
        "Mend the row in the list, or name the right column with --url-column.",
    ),
    "robots_denied": Advice(
        "The robots.txt of the host forbids the page.",
        "Leave it, or ask the host's owner; --no-robots is for hosts that are yours.",
    ),
    "robots_unreachable": Advice(
        "The host answers, but gives no robots.txt: it says 429 or 5xx, or nothing. So nothing is fetched for now.",
        "Take these rows up again later with --retry-failed.",
    ),
    "page_denied": Advice(
        "The page forbids the use that --skip-when names.",
        "It is right to leave it; without that word in --skip-when it is kept.",
    ),
    "address_blocked": Advice(
        "The name leads to a private address, and what led there was public.",
        "If the host is yours, list it itself, or allow it with --private-network allow.",
    ),
    "duplicate": Advice(
        "An earlier row of the list is the same URL.",
        "Nothing: it was fetched once, as --dedupe asks.",
    ),
    "host_budget": Advice(
        "The host refused, or stayed silent, so often that its other rows were given up without a request.",
        "Ask it more slowly (--delay, --per-host 1) and take the rows up again with --retry-failed.",
    ),
    "read_timeout": Advice(
        "The host took the request, and then said nothing for too long.",
        "Take them up again with --retry-failed, with fewer at once (--per-host), or with a longer --read-timeout.",
    ),
    "too_slow": Advice(
        "The body came so slowly that it would not have ended within --timeout.",
        "Give --timeout more seconds, or ask the host for less at once with --per-host.",
    ),
    "total_timeout": Advice(
        "The exchange did not end within --timeout.",
        "Give --timeout more seconds, or ask the host for less at once with --per-host.",
    ),
    "dns_not_found": Advice(
        "No name server knows the host.",
        "Look for a slip of the pen in the list; if the name is right, the site is gone.",
    ),
    "dns_timeout": Advice("No name server answered in time.", f"Look at your own network first. {_LATER}"),
    "connect_refused": Advice("Nobody listens at the host's port.", f"See whether the port is right. {_LATER}"),
    "connect_timeout": Advice("The host did not take the connection in time.", _LATER),
    "connect_reset": Advice(
        "The connection broke before anything was answered.",
        "It may be too many at once: lower --per-host, and take the rows up again with --retry-failed.",
    ),
    "tls_verify": Advice(
        "The certificate is not valid for the host, or nobody we trust has signed it.",
        "For a certificate of your own give --ca-bundle; -k takes any, and proves nothing of who answers.",
    ),
    "tls_protocol": Advice(
        "The handshake failed: no version or cipher in common, or the port speaks no TLS.",
        "Try --tls compatible for old servers, or http:// if the port speaks that.",
    ),
    "tls_timeout": Advice("The handshake did not end in time.", _LATER),
    "empty_reply": Advice("The host closed the connection without an answer.", _LATER),
    "truncated": Advice("The answer ended before it was whole.", _LATER),
    "bad_encoding": Advice(
        "The body's compression is broken, or of a kind that cannot be undone here.",
        "See whether the extra for it is installed; else it is the server's fault.",
    ),
    "malformed_response": Advice(
        "The answer is no HTTP that can be trusted: where it ends is in doubt.",
        "It is the server's fault; see whether the port is that of a web server.",
    ),
    "headers_too_large": Advice(
        "The head of the answer is larger than is taken from anybody.",
        "It is the server's fault; often it sets more cookies with every request.",
    ),
    "redirect_loop": Advice(
        "The redirects go round in a circle.",
        "Often a cookie or a consent is wanted: give one with -b, or leave the page.",
    ),
    "redirect_limit": Advice(
        "There were more redirects than --max-redirects.",
        "Give --max-redirects more, or list the page it leads to.",
    ),
    "bad_redirect": Advice(
        "The redirect leads to what is no http or https URL.",
        "It is the server's fault; list the page by its right address.",
    ),
    "too_large": Advice(
        "The body is larger than --max-size.",
        "Give --max-size more, or keep what came with --truncate.",
    ),
    "parse_timeout": Advice(
        "Reading the page took longer than --parse-timeout.",
        "Give --parse-timeout more seconds, or make the selectors simpler.",
    ),
    "parse_crash": Advice(
        "The process that read the page died of it.",
        "With an extractor of your own, look there first; the page itself is in the output with --body.",
    ),
    "extract_failed": Advice(
        "Your extractor raised an error on the page.",
        "The message names it; mend it, and take the rows up again with --retry-codes extract_failed.",
    ),
    "http_401": Advice("The page wants a login.", "Give one for its host with -u or -H, if you have one."),
    "http_403": Advice(
        "The host refuses us the page.",
        "Slow down (--delay), say who you are (--user-agent), or ask its owner for access.",
    ),
    "http_404": Advice("There is no such page.", "Take the row off the list, or correct it."),
    "http_410": Advice("The page is gone for good.", "Take the row off the list."),
    "http_429": Advice(
        "The host asks for fewer requests.",
        "Give --delay or --per-host 1, and take the rows up again with --retry-failed.",
    ),
    "http_503": Advice(
        "The host is overloaded, or closed for a while.",
        "Give --delay or --per-host 1, and take the rows up again with --retry-failed.",
    ),
}

_FAMILIES = {
    "1": Advice("The answer was interim, and nothing came after it.", "It is the server's fault."),
    "2": Advice("A whole answer, of a status that --accept does not take.", "Name it with --accept, if you want it."),
    "3": Advice(
        "A redirect that cannot be followed, or that --accept does not take.", "List the page that it leads to."
    ),
    "4": Advice(
        "The host says that the request is wrong.", "Open the URL in a browser: what works there can be listed."
    ),
    "5": Advice("The host failed.", "Tell its owner; what may pass is taken up again with --retry-codes 5xx."),
}
_UNKNOWN = Advice("A code of your own middleware, or of a newer version.", "Look at the messages below.")


def advice_for(code: str) -> Advice:
    """Return the advice for a ``code``; for a status without a text of its own that of its class."""
    known = ADVICE.get(code)
    if known is not None:
        return known
    family = _FAMILIES.get(code[5:6]) if code.startswith("http_") else None
    if family is None:
        return _UNKNOWN
    return msgspec.structs.replace(family, do=_LATER) if code in RETRYABLE else family
