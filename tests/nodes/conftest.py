"""What several tests of the nodes share."""

import family_models
import pytest


@pytest.fixture(scope="module")
def models():
    """Of a family by its name: (MODEL, positive, negative, LATENT), made once a file."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = (family_models.model(name), *family_models.conditioning(name))
        return made[name]

    return get
