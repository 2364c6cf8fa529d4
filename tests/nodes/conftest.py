"""What several tests of the nodes share."""

import sys

import chinese
import comfy.model_management
import family_models
import pytest

from cil_pack.nodes.host import notes

sys.modules["cil_pack"].register_folders()  # as the host's start does; schemas list what is in them


@pytest.fixture(scope="module")
def models():
    """Of a family by its name: (MODEL, positive, negative, LATENT), made once a file."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = (family_models.model(name), *family_models.conditioning(name))
        return made[name]

    return get


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path_factory):
    """What a test makes for itself is registered as a place of clips, as a user's own disk would be."""
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "cil_clips", ([str(tmp_path_factory.getbasetemp())], set()))


@pytest.fixture(autouse=True)
def nothing_stays_loaded():
    """As long as the host lists a model whose MODEL is gone, it collects garbage before every run: a quarter of a second each."""
    yield
    comfy.model_management.unload_all_models()
    comfy.model_management.current_loaded_models.clear()


@pytest.fixture(scope="session")
def sentences():
    return chinese.learnt(chinese.known())


@pytest.fixture(autouse=True)
def said_in_chinese_too(monkeypatch, sentences):
    """Every note that a node says in a test is one that nodes/web/zh.json knows."""
    said, loggable = [], notes.loggable
    monkeypatch.setattr(notes, "loggable", lambda text: said.append(text) or loggable(text))
    yield
    left = []
    for text in said:
        chinese.translated(text, sentences, left=left)
    english = [piece for piece in left if chinese.ENGLISH.search(piece)]
    assert not english, f"add to nodes/web/zh.json: {english}"
