"""The host's internals, by subject; nothing else in the pack knows them.

sampling.py: noise processes and schedules. schedule.py: what an artist sets of them. latents.py: spaces,
parts and masks of a LATENT. models.py: a MODEL. evaluation.py: predictions inside the host's sampling.
notes.py: words to the artist.
"""

from . import needs

needs.tell()  # before anything else of the pack asks the host for something
