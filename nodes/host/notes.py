"""Notes to the artist: in the node, and in the log."""

import logging
import re
import sys

log = logging.getLogger("cil")
LONGEST = 4000  # characters of a note


def loggable(text):
    """A text as the console can write it; the host's log raises on other characters, a file name's for example."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def harmless(text):
    """A text as the page may be given it, which puts it into HTML: shown as it is, with no tag, attribute or link in it.

    Beside HTML's own characters the page gives a meaning to [[label|address]], to __LNK0__ and to addresses.
    """
    return re.sub(r"[&<>\"'`\[\]|_]|:(?=//)|(?<=www)\.", lambda found: f"&#{ord(found[0])};", text, flags=re.IGNORECASE)


def say(node_id, text):
    """Show a note in the node and in the log. Never raises: a note must not stop a run."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    log.info(loggable(text))
    try:
        from server import PromptServer

        PromptServer.instance.send_progress_text(harmless(text), node_id)
    except (ImportError, AttributeError, TypeError):  # no page, or an older host
        pass
