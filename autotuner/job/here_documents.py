"""Take the here-documents out of a shell script."""

from __future__ import annotations

import re
from typing import Final

_HEREDOC: Final = re.compile(r"(?<!<)<<-?[ \t]*([\"']?)(\w+)\1([^\n]*\n)")
DOCUMENT: Final = "\0document"
"""A word in place of a here-document begins with it; its number follows."""
QUOTED: Final = "\0quoted"
"""A here-document whose end is in quotes: its variables stay."""
MAX_UNENDED: Final = 16
"""Maximum number of `<<` that no end follows: each costs a search."""


def without_documents(script: str) -> tuple[str, list[str]]:
    """Return a script with a reference in place of each here-document, and the documents.

    A document is data, such as a Python program, unless a shell reads it.
    """
    kept: list[str] = []
    documents: list[str] = []
    at = searched = unended = 0
    while unended < MAX_UNENDED and (match := _HEREDOC.search(script, searched)) is not None:
        start = searched = match.end()
        end = _end_of_document(script, start, match[2])
        if end is None:
            unended += 1
            continue
        kind = QUOTED if match[1] else DOCUMENT
        kept += [script[at : match.start()], f"< {kind}{len(documents)} ", match[3]]
        documents.append(script[start : end[0]])
        at = searched = end[1]
    kept.append(script[at:])
    return "".join(kept), documents


def _end_of_document(script: str, start: int, name: str) -> tuple[int, int] | None:
    """Return where the line that ends a here-document begins and ends."""
    at = start
    while at < len(script):
        end = script.find("\n", at)
        end = len(script) if end < 0 else end
        if script[at:end].lstrip("\t").rstrip() == name:
            return at, end
        at = end + 1
    return None
