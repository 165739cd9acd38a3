"""Text that others wrote, such as a USB serial or a guest's hostname, made fit to be shown."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    """Return *text* with each character that is none to be seen, but for *keep*, as a ``?``.

    A terminal obeys what follows an ESC or a C1 control; a newline begins a line of somebody
    else's, or in sd_notify(3) an assignment.
    """
    return "".join(c if c.isprintable() or c in keep else "?" for c in text)
