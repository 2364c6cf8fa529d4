"""Nodes called as the host calls them, whatever form a host of some age has them in."""

from types import SimpleNamespace


def execute(node, *args, **kwargs):
    """A node's answer; `args` has its outputs."""
    if hasattr(node, "PREPARE_CLASS_CLONE"):
        return node.PREPARE_CLASS_CLONE(None).execute(*args, **kwargs)
    return SimpleNamespace(args=getattr(node(), node.FUNCTION)(*args, **kwargs))  # the host's own, before it gave them schemas


def run(node, *args, **kwargs):
    """A node's outputs."""
    return execute(node, *args, **kwargs).args
