"""Fine-tuning against leakage, in the graph and headless.

model.py makes a host's MODEL trainable; prepare.py and train.py do the work and are commands
(`python run.py do nodes.training.prepare`, `... nodes.training.train`); nodes.py are the nodes.
"""

from .nodes import NODES

__all__ = ["NODES"]
