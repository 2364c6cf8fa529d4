"""Notes to the artist: in the node, where nodes/web/notes.js keeps them, in the log, and in the history for whoever has no page.

A node that has said something gives it as the output `text` of its history entry. What it says
later, while a sampler runs, stands there as `text_at_sampling`: {id of the job: text}.
"""

import functools
import logging
import math
import sys
from typing import Any

from comfy_api.latest import io

from .types import NodeIdLike

log = logging.getLogger("cil")
LONGEST = 4000  # characters of a note


class NodeId(str):
    """A node's id that carries what was said to it: `text` while the node runs, `later` afterwards."""

    def __init__(self, node_id: str):
        self.running = True
        self.text: str | None = None
        self.later: dict[str, str] = {}

    def note(self, text: str, job: str) -> None:
        if self.running:
            self.text = text
        else:
            self.later[job] = text

    def __deepcopy__(self, memo):
        return self  # a copied model goes on telling the same node


def loggable(text: str) -> str:
    """A text as the console can write it; the host's log raises on other characters, a file name's for example."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(node_id: NodeIdLike, text: str) -> None:
    """Show a note in the node, in the log and in the history. Never raises: a note must not stop a run.

    The note of a node is the last thing it said. The page gets it as text, never as HTML.
    """
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    log.info(loggable(text))
    job, workflow = running_job()
    if isinstance(node_id, NodeId):
        node_id.note(text, job)
    try:
        server = prompt_server()
        server.send_sync("cil.note", {"node": str(node_id), "text": text, "prompt_id": job, "workflow": workflow}, server.client_id)
    except (AttributeError, TypeError):  # no page
        pass


def prompt_server() -> Any:
    """The host's PromptServer. None in a command of ours: there nobody imported it, and an import that fails costs 15 ms each time."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def to_go(seconds: float) -> str:
    """A time that is left, as a note tells it."""
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"


def unchanged(node_id: NodeIdLike, why: str, *given) -> io.NodeOutput:
    """A node's outputs where it has nothing to do: what came in, and the reason in words."""
    say(node_id, f"nothing is changed: {why}")
    return io.NodeOutput(*given)


def running_job() -> tuple[str, str]:
    """-> (id of the job that runs, id of the graph that its page had open), each "" where the host does not say."""
    try:
        (_, job, _, extra, *_), *_ = prompt_server().prompt_queue.get_current_queue_volatile()[0]
        return str(job), str(((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id") or "")
    except (AttributeError, TypeError, ValueError):
        return "", ""


def kept(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node class itself, what it says going into its history entry."""
    execute = node.execute.__func__

    @functools.wraps(execute)
    def telling(cls, *args, **kwargs):
        if not getattr(cls.hidden, "unique_id", None):
            return execute(cls, *args, **kwargs)
        told = cls.hidden.unique_id = NodeId(cls.hidden.unique_id)
        try:
            result = execute(cls, *args, **kwargs)
        finally:
            told.running = False
        shown = result.ui.as_dict() if hasattr(result.ui, "as_dict") else dict(result.ui or {})
        # the host looks for the same keys in each run of a node over a list
        result.ui = {"text": [told.text] if told.text else [], **shown, "text_at_sampling": [told.later]}
        return result

    node.execute = classmethod(telling)
    return node
