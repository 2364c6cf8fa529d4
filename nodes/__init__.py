"""The nodes: each file holds one family and lists it in NODES; host.py and families.py know the host."""

from . import analytic_init, demo, early_start, moments, motion, probe, schedule, sweep, training

NODES = [node for module in (early_start, schedule, analytic_init, probe, sweep, motion, moments, training, demo) for node in module.NODES]
