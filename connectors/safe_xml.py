"""XML from outside, read so that nobody pays for it: no document types, entities or network, bounded depth and size.

libxml2 itself bounds depth (some hundred levels) and the length of texts as long as ``huge_tree`` is off. Document types are refused
before anything is parsed, so that no entity is ever expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Any, Final

from lxml import etree

CHUNK: Final = 64 * 1024
HEAD: Final = 1024 * 1024  # a message begins within so many bytes
PARSER: Final[dict[str, Any]] = {
    "resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False, "remove_comments": True, "remove_pis": True,
}  # fmt: skip
_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_ENCODINGS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"})
_MARKS: Final = (b"<!DOCTYPE", b"<!ENTITY")
_LONGEST: Final = max(map(len, _MARKS)) - 1


class XmlError(ValueError):
    """XML that is not read: why, and in which line where that is known."""

    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


def refuse_unsafe(data: bytes) -> None:
    """Raises XmlError for a document type, an entity declaration, or an encoding in which they could hide."""
    _refuse_encoding(data)
    for mark in _MARKS:
        at = data.find(mark)
        if at >= 0:
            raise XmlError("XML with a document type or entities is refused", data.count(b"\n", 0, at) + 1)


def _refuse_encoding(head: bytes) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:64]:
        raise XmlError("XML must be UTF-8")
    encoding = _ENCODING.match(head.lstrip(b"\xef\xbb\xbf \r\n\t"))
    if encoding and encoding[1].decode().lower() not in _ENCODINGS:
        raise XmlError(f"XML encoding {encoding[1].decode()} is not accepted")


def parsed(data: bytes) -> Any:
    """The root element of a small document. Raises XmlError."""
    refuse_unsafe(data)
    try:
        return etree.fromstring(data, etree.XMLParser(**PARSER))
    except etree.XMLSyntaxError as error:
        raise _malformed(error) from error


def _malformed(error: etree.XMLSyntaxError) -> XmlError:
    return XmlError(f"not well-formed XML: {' '.join(str(error.msg).split())[:200]}", error.lineno or 1)


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """The pieces of a stream, safe to parse. Raises XmlError as :func:`refuse_unsafe` does, wherever a piece ends."""
    tail, first = b"", True
    while piece := stream.read(CHUNK):
        if first:
            _refuse_encoding(piece)
            first = False
        seen = tail + piece
        if any(mark in seen for mark in _MARKS):
            raise XmlError("XML with a document type or entities is refused")
        tail = seen[-_LONGEST:]
        yield piece


def path_of(stream: IO[bytes], level: int) -> list[str]:
    """The tags (``{namespace}name``) of the first element of each level from the root down to ``level``. Raises XmlError."""
    parser: Any = etree.XMLPullParser(events=("start",), **PARSER)
    found: list[str] = []
    try:
        for piece in chunks(stream):
            parser.feed(piece)
            for _, element in parser.read_events():
                above = [local(one) for one in element.iterancestors()]
                depth = len(above)
                if "Header" in (*above[-2:], local(element) if depth == 1 else ""):
                    continue  # of an envelope: what it says belongs to the transport
                if depth >= len(found):
                    found.append(element.tag)
                elif depth < len(found) - 1 or found[depth] != element.tag:
                    found[depth:] = [element.tag]
                if len(found) == level:
                    return found
            if stream.tell() > HEAD:
                break
        else:
            parser.close()
    except etree.XMLSyntaxError as error:
        raise _malformed(error) from error
    raise XmlError("the message is not where it should be: Envelope, Body, message")


def children(stream: IO[bytes], parent: str, names: tuple[str, ...], level: int, most_bytes: int) -> Iterator[Any]:
    """The elements at a level (the root is 1) below ``parent``, each whole and freed behind the caller: memory does not grow with the
    document.

    All elements there must be among ``names``. Raises XmlError for another one, for one that takes more than ``most_bytes``, and for
    anything malformed, wherever it stands.
    """
    parser: Any = etree.XMLPullParser(events=("end",), tag=names, **PARSER)
    since = 0
    try:
        for piece in chunks(stream):
            since += len(piece)
            parser.feed(piece)
            for _, element in parser.read_events():
                above = [one.tag for one in element.iterancestors()]
                if len(above) != level - 1 or above[0] != parent:
                    continue
                before = element.getprevious()
                if before is not None and before.tag not in names:
                    raise XmlError(f"{local(before)[:100]} does not belong here", before.sourceline or 1)
                yield element
                since = 0
                _free(element)
            if since > most_bytes + CHUNK:
                raise XmlError(f"an element is longer than the {most_bytes} bytes one may have")
        left = parser.close()
    except etree.XMLSyntaxError as error:
        raise _malformed(error) from error
    for _ in range(level - 2):
        left = left[-1]
    strange = next((one for one in left if one.tag not in names), None)
    if strange is not None:
        raise XmlError(f"{local(strange)[:100]} does not belong here", strange.sourceline or 1)


def _free(element: Any) -> None:
    parent = element.getparent()
    element.clear()
    while element.getprevious() is not None:
        del parent[0]


def local(element: Any) -> str:
    """The name of an element without its namespace; empty for what is no element."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def space(element: Any) -> str:
    """The namespace of an element."""
    return element.tag[1:].rpartition("}")[0] if isinstance(element.tag, str) and element.tag.startswith("{") else ""


def bare(element: Any) -> Any:
    """The element with the namespaces of all inside it taken off, in place."""
    for one in element.iter():
        if isinstance(one.tag, str) and one.tag.startswith("{"):
            one.tag = one.tag.rpartition("}")[2]
    return element


def text(element: Any, path: str) -> str:
    """The stripped text of the first descendant by local names (``A/B``); empty where there is none."""
    for name in path.split("/"):
        element = next((child for child in element if local(child) == name), None)
        if element is None:
            return ""
    return (element.text or "").strip()
