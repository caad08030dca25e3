"""The text of an element as a person sees it: ``innerText`` (HTML Standard, 3.2.7), with white space folded.

Law 7: the web's bytes are never trusted. The time is linear in the number of nodes, however they are nested.

What is not rendered says nothing: scripts, styles and templates, what the standard's own style sheet hides, and what
hides itself by ``hidden`` or ``style="display: none"``; style sheets are not looked at. Where such an element is itself
asked for, it gives its own text. ``br``, blocks, table cells and list items part words, all other elements do not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from selectolax.lexbor import LexborHTMLParser, LexborNode

__all__ = ["PARTING", "TEXT", "inner_lines", "inner_text", "tag_ids"]

_KNOWN_IDS = 1_000  # lexbor's own ids of tags; those it does not know have others, in each document


def tag_ids(names: str) -> frozenset[int]:
    """Return lexbor's numbers of elements: ``tag_id`` takes a third of the time of ``tag``."""
    parser = LexborHTMLParser("")
    found = (parser.create_node(name).tag_id for name in names.split())
    return frozenset(number for number in found if number is not None and number < _KNOWN_IDS)


TEXT = 2  # LXB_TAG__TEXT
_COMMENT = 4  # LXB_TAG__EM_COMMENT
# HTML Standard, 15.3: the elements that are blocks, list items or parts of tables, and those with display: none.
_BREAKS = tag_ids(
    "address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li listing main menu nav ol optgroup option p plaintext "
    "pre search section summary table tbody td tfoot th thead tr ul xmp"
)
_RAW = tag_ids("iframe noembed noframes script style template title")  # at most a text within
_UNSEEN = _RAW | tag_ids("audio canvas datalist head noscript rp video")
_OWN_TEXT = _RAW | tag_ids("head")
(_TEMPLATE,) = tag_ids("template")
(_DIALOG,) = tag_ids("dialog")
_CELLS = tag_ids("td th")
_KEPT = tag_ids("listing plaintext pre xmp")
_EMPTY = tag_ids("br hr img input wbr") | {_COMMENT}
PARTING = _BREAKS | _UNSEEN  # the elements that are blocks, and those that are not seen
_CELL = "\0"  # ends a cell: NUL is in no text

_HIDING = "[hidden],[style*=display i]"
_HIDING_OR_DIALOG = f"{_HIDING},dialog:not([open])"
_DISPLAY_NONE = re.compile(r"(?:^|;)\s*display\s*:\s*none\b", re.IGNORECASE)


def inner_text(root: LexborNode, *, max_nodes: int | None = None) -> str:
    """Return the text of ``root`` and all within as a person sees it, white space folded.

    ``max_nodes`` bounds how many nodes within are looked at, for who asks for many that may be nested.
    """
    if root.tag_id in _OWN_TEXT:
        texts = (
            [fragment.text() for fragment in root.template_fragments()] if root.tag_id == _TEMPLATE else [root.text()]
        )
        return " ".join(" ".join(texts).split())
    child = root.first_child
    if child is None or (child.tag_id == TEXT and child.next is None):  # most of what is selected
        return " ".join((child.text_content or "").split()) if child is not None else ""
    hidden = _hidden_within(root)
    if not hidden and _is_of_one_piece(root, max_nodes):
        return " ".join(root.text().split())
    return " ".join(_texts_within(root, hidden, max_nodes).split())


def _is_of_one_piece(root: LexborNode, max_nodes: int | None) -> bool:
    """Tell whether there is neither a block nor anything unseen within, in as few nodes as may be looked at."""
    # Beside each element there are at most two texts: one before it, and one in it.
    elements = islice(root.traverse(), 1, None if max_nodes is None else max_nodes // 4)
    count = 0
    for node in elements:
        if node.tag_id in PARTING:
            return False
        count += 1
    return max_nodes is None or count < max_nodes // 4 - 1


def _texts_within(root: LexborNode, hidden: Collection[int], max_nodes: int | None) -> str:
    """Return the texts within ``root``, with a space where a block parts them."""
    root_id = root.mem_id
    parts: list[str] = []
    last = ""  # the text before, where no break is between
    blocks = False  # there was a block
    passed = 0  # the node that ends what is passed over
    nodes = root.traverse(include_text=True)
    next(nodes)  # the root
    if max_nodes is not None:
        nodes = islice(nodes, max_nodes)
    for node in nodes:
        if passed:
            if node.mem_id != passed:
                continue
            passed = 0
        tag = node.tag_id
        if tag == TEXT:
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
    return "".join(parts)


def inner_lines(root: LexborNode) -> str:
    """Return the text of ``root`` and all within as a person sees it: each paragraph, row or list item on a line.

    Cells of a row have tabs between them, the text of ``pre`` keeps its lines and spaces; elsewhere white space is
    folded, and there are no empty lines.
    """
    marked = [node for node in root.traverse() if node.tag_id in PARTING]
    hidden = _hiding_among(root, marked)
    return "\n".join(filter(None, _lines_within(root, hidden, _parted_by(root, marked, hidden))))


def _lines_within(root: LexborNode, hidden: Collection[int], parted: Collection[int]) -> list[str]:
    """Return the lines; there may be empty ones among them."""
    lines: list[str] = []
    row: list[str] = []  # of texts, of the line that has begun; one that stands by itself is folded
    breaks, cells, add = _BREAKS, _CELLS, row.append  # names of our own are faster
    ended = False  # a block, and nothing but white space came since
    above: list[tuple[Iterator[LexborNode], bool]] = []  # what is left of the elements around, and which are blocks
    nodes = iter([root])
    while True:
        for node in nodes:
            tag = node.tag_id
            if tag in breaks:
                if row and tag in cells:
                    add(_CELL)
                elif row:
                    lines.append(row[0] if len(row) == 1 else _line_of(row))
                    row.clear()
                number = node.mem_id
                ended = True
                if (hidden and number in hidden) or tag in _KEPT:
                    if number not in hidden:
                        lines.append(_kept_text(node, hidden, parted))
                elif number in parted:
                    ended = False
                    above.append((nodes, True))
                    nodes = node.iter(include_text=True, skip_empty=True)
                    break
                elif text := " ".join(node.text().split()):
                    add(text)
            elif tag not in _UNSEEN and not (hidden and node.mem_id in hidden):
                if row and not ended and _follows_space(node, hidden):
                    add(" ")
                if tag != TEXT and node.mem_id in parted:
                    above.append((nodes, False))
                    nodes = node.iter(include_text=True)
                    break
                text = node.text() if tag not in _EMPTY else ""
                if text and not text.isspace():
                    if ended and row:
                        lines.append(_line_of(row))
                        row.clear()
                    row += (text, "")
                    ended = False
                elif text and row and not ended:
                    add(" ")
        else:
            if not above:
                return [*lines, _line_of(row)]
            nodes, block = above.pop()
            ended = ended or block


def _line_of(row: Sequence[str]) -> str:
    text = "".join(row)
    if _CELL in text:
        return "\t".join([" ".join(cell.split()) for cell in text.split(_CELL)]).strip("\t")
    return " ".join(text.split())


def _follows_space(node: LexborNode, hidden: Collection[int]) -> bool:
    """Tell whether white space alone stands between ``node`` and what is seen before it: a text that was passed over."""
    before = node.prev
    while before is not None and (
        (tag := before.tag_id) in _UNSEEN or tag == _COMMENT or (hidden and before.mem_id in hidden)
    ):
        before = before.prev
    return before is not None and before.tag_id == TEXT and (before.text_content or "").isspace()


def _parted_by(root: LexborNode, marked: list[LexborNode], hidden: Collection[int]) -> set[int]:
    """Return the ids of ``root`` and of the elements that have one of ``marked``, or something hidden, within.

    Of all others the text is what lexbor takes out of them, and so of most nodes of a page nothing is looked at.
    """
    if hidden:
        marked = marked + [node for node in root.traverse() if node.mem_id in hidden]
    parted = {above.mem_id for node in marked if (above := node.parent) is not None}
    parted.add(root.mem_id)
    passed = {node.mem_id for node in marked}
    inline = parted - passed
    if (around := root.parent) is not None:
        inline.discard(around.mem_id)
    if inline:  # there are elements within which there is a block, and that are none themselves
        passed.add(root.mem_id)
        for node in marked:
            above = node.parent
            while above is not None and (number := above.mem_id) not in passed:
                passed.add(number)
                above = above.parent
                if above is not None:
                    parted.add(above.mem_id)
    return parted


def _kept_text(pre: LexborNode, hidden: Collection[int], parted: Collection[int]) -> str:
    """Return the text of a ``pre`` with its lines and spaces, without empty lines around it."""
    if pre.mem_id not in parted:
        return _without_empty_ends(pre.text())
    parts: list[str] = []
    passed = 0
    nodes = pre.traverse(include_text=True)
    next(nodes)  # itself
    for node in nodes:
        if passed:
            if node.mem_id != passed:
                continue
            passed = 0
        tag = node.tag_id
        if tag == TEXT:
            parts.append(node.text_content or "")
        elif tag in _UNSEEN or node.mem_id in hidden:
            passed = _next_after(node, pre.mem_id)
            if not passed:
                break
        elif tag in _BREAKS:
            parts.append("\n")
    return _without_empty_ends("".join(parts))


def _without_empty_ends(text: str) -> str:
    return "\n".join([line.rstrip() for line in text.splitlines()]).strip("\n")


def _hidden_within(root: LexborNode) -> Collection[int]:
    """Return the ids of the elements within that hide themselves. Few pages have any in what is selected of them."""
    html = root.html or ""
    return _hiding_within(root) if " hidden" in html or "display" in html or "<dialog" in html else ()


def _hiding_within(root: LexborNode) -> Collection[int]:
    found = {node.mem_id for node in root.css(_HIDING_OR_DIALOG) if _hides_itself(node)}
    found.discard(root.mem_id)  # it was asked for
    return found


def _hiding_among(root: LexborNode, marked: Sequence[LexborNode]) -> Collection[int]:
    """Return the same, where all the dialogs within are among ``marked``."""
    found = {node.mem_id for node in root.css(_HIDING) if _hides_itself(node)}
    found.update([node.mem_id for node in marked if node.tag_id == _DIALOG and "open" not in node.attributes])
    found.discard(root.mem_id)
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


def _behind_inline(block: LexborNode, root_id: int) -> int:
    """Return the id of the node behind the inline elements that end with ``block``; 0 where a block ends with it too."""
    above = block.parent
    while above is not None and above.mem_id != root_id and above.tag_id not in _BREAKS:
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
        while tag != TEXT and tag not in _BREAKS and tag not in _UNSEEN and (last := previous.last_child) is not None:
            previous, tag = last, last.tag_id
        if tag == TEXT or tag in _BREAKS:
            return tag != TEXT
        node = previous
