"""Notes to the artist: in the node, and in the log."""

import logging
import sys

log = logging.getLogger("cil")


def loggable(text):
    """A text as the console can write it; the host's log raises on other characters, a file name's for example."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(node_id, text):
    """Show a note in the node and in the log. Never raises: a note must not stop a run."""
    log.info(loggable(text))
    try:
        from server import PromptServer

        PromptServer.instance.send_progress_text(text, node_id)
    except (ImportError, AttributeError, TypeError):  # no page, or an older host
        pass
