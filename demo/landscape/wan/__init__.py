"""A second demo model, of the kind that most people run today: see ../README.md."""
