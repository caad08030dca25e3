"""The text of an element as a person sees it: ``innerText`` (HTML Standard, 3.2.7), with white space folded.

Law 7: the web's bytes are never trusted. The time is linear in the number of nodes, however they are nested.

What is not rendered says nothing: scripts, styles and templates, what the standard's own style sheet hides, and what
hides itself by ``hidden`` or ``style="display: none"``; style sheets are not looked at. Where such an element is itself
asked for, it gives its own text. ``br``, blocks, table cells and list items part words, all other elements do not.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from selectolax.lexbor import LexborHTMLParser, LexborNode

__all__ = ["inner_text"]

_KNOWN_IDS = 1_000  # lexbor's own ids of tags; those it does not know have others, in each document


def _ids(names: str) -> frozenset[int]:
    parser = LexborHTMLParser("")
    found = (parser.create_node(name).tag_id for name in names.split())
    return frozenset(number for number in found if number is not None and number < _KNOWN_IDS)


# HTML Standard, 15.3: the elements that are blocks, list items or parts of tables, and those with display: none.
_BREAKS = _ids(
    "address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li listing main menu nav ol optgroup option p plaintext "
    "pre search section summary table tbody td tfoot th thead tr ul xmp"
)
_RAW = _ids("iframe noembed noframes script style template title")  # at most a text within
_UNSEEN = _RAW | _ids("audio canvas datalist head noscript rp video")
_OWN_TEXT = _RAW | _ids("head")
(_TEMPLATE,) = _ids("template")
_TEXT = 2  # LXB_TAG__TEXT

_MAY_HIDE = (" hidden", "display", "<dialog")
_HIDING = "[hidden],[style*=display i],dialog:not([open])"
_DISPLAY_NONE = re.compile(r"(?:^|;)\s*display\s*:\s*none\b", re.IGNORECASE)


def inner_text(root: LexborNode) -> str:
    """Return the text of ``root`` and all within as a person sees it, white space folded."""
    if root.tag_id in _OWN_TEXT:
        texts = (
            [fragment.text() for fragment in root.template_fragments()] if root.tag_id == _TEMPLATE else [root.text()]
        )
        return " ".join(" ".join(texts).split())
    child = root.first_child
    if child is None or (child.tag_id == _TEXT and child.next is None):  # most of what is selected
        return " ".join((child.text_content or "").split()) if child is not None else ""
    root_id = root.mem_id
    parts: list[str] = []
    last = ""  # the text before, where no break is between
    blocks = False  # there was a block
    hidden = _hidden_within(root)
    passed = 0  # the node that ends what is passed over
    nodes = root.traverse(include_text=True)
    next(nodes)  # the root
    for node in nodes:
        if passed:
            if node.mem_id != passed:
                continue
            passed = 0
        tag = node.tag_id
        if tag == _TEXT:
            text = node.text_content or ""
            if last and blocks and not (text[:1].isspace() or last[-1].isspace()) and _follows_block(node, root_id):
                parts.append(" ")
            parts.append(text)
            last = text
            continue
        if tag in _BREAKS:
            parts.append(" ")
            last, blocks = "", True
        if tag in _UNSEEN or (hidden and node.mem_id in hidden):
            passed = _next_after(node, root_id)
            if not passed:
                break
    return " ".join("".join(parts).split())


def _hidden_within(root: LexborNode) -> Collection[int]:
    """Return the ids of the elements within that hide themselves. Few pages have any in what is selected of them."""
    html = root.html or ""
    if not any(map(html.__contains__, _MAY_HIDE)):
        return ()
    found = {node.mem_id for node in root.css(_HIDING) if _hides_itself(node)}
    found.discard(root.mem_id)  # it was asked for
    return found


def _hides_itself(node: LexborNode) -> bool:
    attributes = node.attributes
    if "hidden" in attributes or node.tag == "dialog":
        return True
    return _DISPLAY_NONE.search(attributes.get("style") or "") is not None


def _next_after(node: LexborNode, root_id: int) -> int:
    """Return the id of the node that comes after ``node`` and all within; 0 where none does within the root."""
    above: LexborNode | None = node
    while above is not None and above.mem_id != root_id:
        if (following := above.next) is not None:
            return following.mem_id
        above = above.parent
    return 0


def _follows_block(text: LexborNode, root_id: int) -> bool:
    """Tell whether a block ended between ``text`` and the text before it.

    Looks at what lies between the two, so that all texts together look at each node once.
    """
    node = text
    while True:
        previous = node.prev
        while previous is None:
            above = node.parent
            if above is None or above.mem_id == root_id or above.tag_id in _BREAKS:
                return False  # a block's own beginning was noted
            node = above
            previous = node.prev
        tag = previous.tag_id
        while tag != _TEXT and tag not in _BREAKS and tag not in _UNSEEN and (last := previous.last_child) is not None:
            previous, tag = last, last.tag_id
        if tag == _TEXT or tag in _BREAKS:
            return tag != _TEXT
        node = previous
