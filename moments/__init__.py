"""The packaged moments files, and the command that makes them: `python run.py do moments.make`."""
