"""The nodes: each file holds one family and lists it in NODES; host.py and families.py know the host."""

from . import analytic_init, demo, dynamicrafter, early_start, moments, motion, probe, schedule, sweep

NODES = [node for module in (early_start, schedule, analytic_init, probe, sweep, motion, moments, dynamicrafter, demo) for node in module.NODES]
