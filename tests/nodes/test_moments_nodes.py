"""Load, estimate and save moments through the nodes, with the demo's VAE."""

import json
import sys

import comfy.model_management
import folder_paths
import pytest
import torch
import video_file

from cil_pack.cil import moments as M
from cil_pack.cil.estimate import Accumulator
from cil_pack.cil.files import Claimed
from cil_pack.demo import latents, model, scenes
from cil_pack.moments import make
from cil_pack.nodes import estimate as nodes_estimate
from cil_pack.nodes import moments as nodes_moments
from cil_pack.nodes.families import FAMILIES, SPACES
from cil_pack.nodes.host.latents import latent_format_of


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    sys.modules["cil_pack"].register_folders()
    paths, suffixes = folder_paths.folder_names_and_paths["cil_moments"]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "cil_moments", ([str(tmp_path / "own"), *paths], suffixes))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path / "own"


@pytest.fixture
def said(monkeypatch):
    notes = []
    for module in (nodes_moments, nodes_estimate):
        monkeypatch.setattr(module, "say", lambda node, text: notes.append(text))
    return notes


@pytest.fixture(scope="module")
def demo():
    return model.load("healthy")


@pytest.fixture(scope="module")
def clips():
    return scenes.render(scenes.sample(6, torch.Generator().manual_seed(5)), 4)  # [6, 4, 3, H, W]


@torch.inference_mode()  # as the host runs nodes
def run(node, **kwargs):
    return node.PREPARE_CLASS_CLONE(None).execute(**kwargs)


def estimate(demo, **kwargs):
    defaults = {"model": demo[0], "folder": "", "frames": 4, "fps": 3.0, "width": 128, "height": 128, "seed": 0, "flip": False}
    return run(nodes_estimate.EstimateMoments, **(defaults | kwargs)).args


def expected(clips):
    a = Accumulator()
    a.add(latents.encode(clips).movedim(1, 2))
    return a.moments("demo")


def close(made, right, tolerance=2e-5):
    assert torch.allclose(made.mean, right.mean, atol=tolerance)
    assert made.variance == pytest.approx(right.variance, rel=max(1e-4, tolerance / 10))
    assert (made.space, made.count) == (right.space, right.count)


def test_from_images(demo, clips, said):
    images = clips.flatten(0, 1).movedim(1, -1)
    made, picture, report = estimate(demo, vae=demo[2], images=images)
    close(made, expected(clips))
    assert picture.ndim == 4 and picture.shape[-1] == 3 and picture.min() >= 0 and picture.max() <= 1
    assert json.loads(report)["clips"] == 6
    assert any(note.startswith("3 of 6") for note in said)


def test_from_latents_without_a_vae(demo, clips):
    batch = {"samples": latents.encode(clips).movedim(1, 2) / latents.SCALE}
    close(estimate(demo, latents=batch)[0], expected(clips))


def test_from_a_folder_with_bad_files_in_it(demo, clips, tmp_path, said):
    videos = tmp_path / "videos"
    (videos / "deep er").mkdir(parents=True)
    for i, clip in enumerate(clips):
        video_file.write(videos / "deep er" / f"{i}.mp4", clip.movedim(1, -1), rate=3, lossless=True)
    video_file.write(videos / "short.mp4", clips[0][:1].movedim(1, -1), rate=3, lossless=True)
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "corrupt.mp4").write_bytes(bytes(range(256)) * 20)
    (videos / "notes.txt").write_text("not a video")
    made, _, report = estimate(demo, vae=demo[2], folder=str(videos))
    assert made.count == 6
    close(made, expected(clips), tolerance=0.05)  # eight bits a colour
    skipped = "\n".join(json.loads(report)["skipped"])
    assert "short.mp4: it is 0.33 s long, but 4 frames at 3 fps need 1.00 s" in skipped
    assert "empty.mp4: it cannot be decoded" in skipped and "corrupt.mp4: it cannot be decoded" in skipped
    assert any("3 skipped" in note for note in said)


def test_cancel_keeps_what_was_estimated(demo, clips, tmp_path, own_folder, said, monkeypatch):
    videos = tmp_path / "videos"
    videos.mkdir()
    for i, clip in enumerate(clips):
        video_file.write(videos / f"{i}.mp4", clip.movedim(1, -1), rate=3, lossless=True)
    whole = estimate(demo, vae=demo[2], folder=str(videos))[0]
    stop = comfy.model_management.InterruptProcessingException

    def interrupted():
        if said and said[-1].startswith("3 of 6"):
            raise stop

    said.clear()

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
    with pytest.raises(stop):
        estimate(demo, vae=demo[2], folder=str(videos))
    assert said[-1].startswith("3 of 6")
    assert [p.suffix for p in own_folder.iterdir()] == [".partial"]
    said.clear()
    made = estimate(demo, vae=demo[2], folder=str(videos))[0]
    assert said[0].startswith("4 of 6")
    assert torch.equal(made.mean, whole.mean) and made.variance == whole.variance
    assert not list(own_folder.iterdir())


def write_videos(folder, clips):
    folder.mkdir(parents=True, exist_ok=True)
    for i, clip in enumerate(clips):
        video_file.write(folder / f"{i}.mp4", clip.movedim(1, -1), rate=3, lossless=True)
    return folder


def interrupted_after(monkeypatch, said, words):
    """The user's interrupt, when a note begins so."""
    stop = comfy.model_management.InterruptProcessingException

    def interrupted():
        if said and said[-1].startswith(words):
            raise stop

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
    return pytest.raises(stop)


def another_vae(vae):
    """The same kind of VAE with other weights."""
    made = model.load("healthy")[2]
    with torch.no_grad():
        for weight in made.first_stage_model.parameters():
            weight.mul_(1.5)
    return made


def test_an_estimate_does_not_go_on_with_another_vae(demo, clips, tmp_path, own_folder, said, monkeypatch):
    videos, other = write_videos(tmp_path / "videos", clips), another_vae(demo[2])
    right = estimate(demo, vae=other, folder=str(videos))[0]
    with monkeypatch.context() as patch, interrupted_after(patch, said, "3 of 6"):
        estimate(demo, vae=demo[2], folder=str(videos))
    made = estimate(demo, vae=other, folder=str(videos))[0]
    assert torch.equal(made.mean, right.mean) and made.variance == right.variance


def test_a_video_that_was_mended_is_averaged(demo, clips, tmp_path, own_folder, said, monkeypatch):
    videos = write_videos(tmp_path / "videos", clips)
    right, good = estimate(demo, vae=demo[2], folder=str(videos))[0], (videos / "1.mp4").read_bytes()
    (videos / "1.mp4").write_bytes(b"broken")
    with monkeypatch.context() as patch, interrupted_after(patch, said, "4 of 6: 3 clips averaged, 1 skipped"):
        estimate(demo, vae=demo[2], folder=str(videos))
    (videos / "1.mp4").write_bytes(good)
    made = estimate(demo, vae=demo[2], folder=str(videos))[0]
    assert made.count == 6 and torch.allclose(made.mean, right.mean, atol=1e-6) and made.about["content"] == right.about["content"]


def test_an_averaged_video_that_was_changed_begins_anew(demo, clips, tmp_path, own_folder, said, monkeypatch):
    videos = write_videos(tmp_path / "videos", clips)
    with monkeypatch.context() as patch, interrupted_after(patch, said, "4 of 6"):
        estimate(demo, vae=demo[2], folder=str(videos))
    (videos / "0.mp4").write_bytes((videos / "5.mp4").read_bytes())
    made = estimate(demo, vae=demo[2], folder=str(videos))[0]
    close(made, expected(torch.cat([clips[5:], clips[1:]])), tolerance=0.05)


def test_the_host_sees_that_a_folder_has_changed(demo, clips, tmp_path):
    videos, told = write_videos(tmp_path / "videos", clips[:2]), nodes_estimate.EstimateMoments.fingerprint_inputs
    before = told(folder=f'"{videos}"', frames=4)
    assert before == told(folder=str(videos), frames=4) and told(folder="") == told() == told(folder=None)
    write_videos(tmp_path / "videos", clips[:3])
    assert told(folder=str(videos), frames=4) != before


def test_the_look_at_a_folder_before_a_run_ends_with_an_interrupt_and_leaves_it_to_the_run(demo, clips, tmp_path):
    videos, told = write_videos(tmp_path / "videos", clips[:2]), nodes_estimate.EstimateMoments.fingerprint_inputs
    comfy.model_management.interrupt_current_processing(True)
    try:
        assert told(folder=str(videos), frames=4) is None and comfy.model_management.processing_interrupted()
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert told(folder=str(videos), frames=4)


def test_a_pasted_path_may_have_quotes(demo, clips, tmp_path):
    videos = write_videos(tmp_path / "videos", clips[:2])
    assert estimate(demo, vae=demo[2], folder=f'"{videos}"')[0].count == 2


def test_too_few_clips_come_with_the_reasons(demo, clips, tmp_path):
    videos = write_videos(tmp_path / "videos", clips[:1])
    (videos / "broken.mp4").write_bytes(b"broken")
    with pytest.raises(ValueError, match="at least two clips, but 1 came \\(1 files gave none: broken.mp4: it cannot be decoded"):
        estimate(demo, vae=demo[2], folder=str(videos))


def test_two_estimates_of_one_folder_do_not_meet(demo, clips, tmp_path, own_folder, said, monkeypatch):
    videos = write_videos(tmp_path / "videos", clips[:2])
    looked_at, real = "throw_exception_if_processing_interrupted", comfy.model_management.throw_exception_if_processing_interrupted
    refused = []

    def another():
        if not list(own_folder.glob("*.lock")):  # while the videos are looked for
            return
        monkeypatch.setattr(comfy.model_management, looked_at, real)
        with pytest.raises(Claimed, match="is being written by process"):
            estimate(demo, vae=demo[2], folder=str(videos))
        refused.append(True)

    monkeypatch.setattr(comfy.model_management, looked_at, another)
    assert estimate(demo, vae=demo[2], folder=str(videos))[0].count == 2
    assert refused


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "fill in folder, or connect images or latents"),
        ({"images": torch.zeros(8, 16, 16, 3)}, "images must go through the model's VAE: connect vae"),
        ({"images": torch.zeros(8, 16, 16, 3), "folder": "x"}, "folder, images came"),
        ({"images": torch.zeros(7, 16, 16, 3), "vae": True}, "7 images do not make whole clips of 4 frames"),
        ({"images": torch.zeros(8, 15, 16, 3), "vae": True}, "images of 16 x 15 pixels are too small"),
        ({"folder": "no/such/place", "vae": True}, "no folder or list of videos at place"),
        ({"folder": "/no/such/place", "vae": True}, "'place' lies outside the folders from which a graph may read clips"),
        ({"latents": {"samples": torch.zeros(1, 4, 4, 8, 8)}}, "at least two clips, but 1 came"),
    ],
)
def test_bad_input_is_refused_in_words(demo, inputs, message):
    with pytest.raises(ValueError, match=message):
        estimate(demo, **(inputs | ({"vae": demo[2]} if inputs.get("vae") else {})))


def test_an_empty_folder_is_refused(demo, tmp_path):
    with pytest.raises(ValueError, match="holds no videos"):
        estimate(demo, vae=demo[2], folder=str(tmp_path))


def test_save_and_load(own_folder, said):
    moments = M.Moments(torch.randn(4, 3, 8, 8), 0.5, "sd", 7, {"licence": "CC0"})
    path = run(nodes_moments.SaveMoments, moments=moments, name="mine").args[0]
    assert path == str(own_folder / "mine.safetensors")
    assert "mine.safetensors" in folder_paths.get_filename_list("cil_moments")
    loaded = run(nodes_moments.LoadMoments, moments_name="mine.safetensors", detail="full").args[0]
    assert torch.equal(loaded.mean, moments.mean.half().float()) and loaded.about["licence"] == "CC0"
    assert run(nodes_moments.LoadMoments, moments_name="mine.safetensors", detail="channel").args[0].mean.shape == (4, 1, 1, 1)


@pytest.mark.parametrize("name", ["../escape", "", "a/b", ".hidden", "c:\\x", "con", 200 * "n"])
def test_a_name_cannot_leave_the_folder(name):
    with pytest.raises(ValueError, match="cannot be a file name"):
        run(nodes_moments.SaveMoments, moments=M.Moments(torch.zeros(4, 1, 1, 1), 1.0, "sd"), name=name)


def test_the_loader_warns_of_a_border(own_folder, said):
    mean = torch.zeros(4, 1, 40, 64)
    mean[:, :, :6], mean[:, :, -6:] = -1.5, -1.5
    M.save(M.Moments(mean, 0.8, "sd"), own_folder / "boxed.safetensors")
    run(nodes_moments.LoadMoments, moments_name="boxed.safetensors", detail="channel")
    assert "border (6 cells above, 6 cells below)" in said[-1]


def test_the_authors_pt_files_load_from_the_folder(own_folder, said):
    own_folder.mkdir()
    torch.save({"Expectation_X0": torch.zeros(1, 4, 16, 4, 4) + 0.3, "Tr_Cov_d": torch.tensor(0.8)}, own_folder / "theirs.pt")
    folder_paths.filename_list_cache.clear()
    assert "theirs.pt" in folder_paths.get_filename_list("cil_moments")
    assert run(nodes_moments.LoadMoments, moments_name="theirs.pt", detail="channel").args[0].variance == pytest.approx(0.8)


# ---- the packaged files -------------------------------------------------------------


def test_packaged_files_are_what_the_table_says(root):
    table = (root / "moments" / "README.md").read_text(encoding="utf-8")
    packaged = sorted((root / "moments").glob("*.safetensors"))
    assert packaged
    for path in packaged:
        loaded = M.load(path)
        row = next(line for line in table.splitlines() if line.startswith(f"| `{path.name}`"))
        assert f"{loaded.variance:.4f}" in row and f"| {loaded.count} |" in row, row
        assert ", ".join(f"{m:.3f}" for m in loaded.mean.mean((1, 2, 3))) in row, row
        assert loaded.about["source"] and loaded.about["licence"]


def test_the_sd_file_has_the_published_figures(root):
    loaded = M.load(root / "moments" / "sd.safetensors")
    assert loaded.mean.flatten().tolist() == pytest.approx([0.302, -0.325, 0.232, 0.133])
    assert loaded.variance == 0.808


@pytest.mark.parametrize("name, made, clips", [("demo", make.demo, 512), ("landscape", make.of_landscape, 64)])
def test_the_demos_files_are_recomputed_from_their_data(root, name, made, clips):
    again, packaged = made(clips), M.load(root / "moments" / f"{name}.safetensors")
    assert torch.allclose(again.mean, packaged.mean, atol=0.05)
    assert again.variance == pytest.approx(packaged.variance, rel=0.05)


def test_every_family_names_a_space_and_a_file_that_exist(root):
    known = set(SPACES.values()) | {"demo", "landscape"}
    for family in FAMILIES:
        assert family.space in known
        if family.moments:
            assert M.load(root / "moments" / family.moments).space == family.space


@pytest.mark.parametrize("space", ["wan21", "wan22", "mochi"])
def test_spaces_that_the_host_normalises_have_mean_0_and_variance_1(space):
    """From the published per-channel statistics, which the host carries: latents with them become N(0, 1)."""
    latent_format = latent_format_of(space)
    g = torch.Generator().manual_seed(0)
    raw = latent_format.latents_mean + latent_format.latents_std * torch.randn(1, latent_format.latent_channels, 8, 40, 40, generator=g)
    seen = latent_format.process_in(raw)
    assert seen.mean((0, 2, 3, 4)).abs().max() < 0.05
    assert (seen.std((0, 2, 3, 4)) - 1).abs().max() < 0.05
