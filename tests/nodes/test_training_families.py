"""Training DynamiCrafter, VideoCrafter1 and Wan: the network is shown what sampling shows it, and the LoRA comes back."""

import dataclasses
import hashlib
import json
import math

import comfy.clip_vision
import comfy_extras.nodes_wan as wan
import family_models
import folder_paths
import lvdm_tiny
import lvdm_weights
import pytest
import torch
import video_file
from lvdm_ddim import published
from network_inputs import sample
from node_calls import run
from safetensors.torch import load_file, save_file
from training_settings import QUICK

import nodes as host_nodes
from cil_pack.cil import clips as cil_clips
from cil_pack.cil import prepared, training
from cil_pack.cil.timenoise import TimeNoise
from cil_pack.cil.training import Clip, Recipe
from cil_pack.nodes.dynamicrafter import DynamiCrafterConditioning
from cil_pack.nodes.lvdm.model import VARIANTS
from cil_pack.nodes.training import model as trainable
from cil_pack.nodes.training import modes, train
from cil_pack.nodes.training import nodes as training_nodes
from cil_pack.nodes.training.conditions import adapter_of

LVDM = [v.name for v in VARIANTS]
WAN = ["Wan 2.1 I2V", "Wan 2.2 14B I2V"]
ALL = [*LVDM, *WAN]
FEW = ["DynamiCrafter 512", "VideoCrafter1 512", *WAN]
FPS, HEIGHT, WIDTH = 8.0, 64, 96


class FakeVision:
    """Tokens that follow from the picture and from how it was cropped."""

    def __init__(self, width):
        self.width = width

    def encode_image(self, image, crop=True):
        means = torch.nn.functional.adaptive_avg_pool2d(image[..., :3].movedim(-1, 1), (5, 4)).flatten(2).movedim(1, 2)  # [1, 20, 3]
        out = comfy.clip_vision.Output()
        tokens = torch.einsum("bnc,cd->bnd", means + 0.5 * crop, lvdm_weights.draw((3, self.width), 11))[:, :5]
        out.last_hidden_state, out.penultimate_hidden_states = tokens, tokens.flip(1)
        return out


class FakeText:
    """A text's own tokens."""

    def __init__(self, width):
        self.width = width

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        return [[lvdm_weights.draw((1, 7, self.width), seed), {"pooled_output": None}]]


@dataclasses.dataclass
class Subject:
    """A tiny model and what belongs to it."""

    name: str
    model: object
    vae: object
    vision: FakeVision
    text: FakeText
    frames: int

    @property
    def lvdm(self):
        return self.name in LVDM

    @torch.inference_mode()
    def conditioning(self, picture, text):
        """By the graph's own node for this model: (positive, negative, LATENT)."""
        positive, negative = (self.text.encode_from_tokens_scheduled(t) for t in (text, ""))
        if self.lvdm:
            fps = self.model.model.model_config.variant.told(FPS)
            return (
                DynamiCrafterConditioning.PREPARE_CLASS_CLONE(None)
                .execute(positive, negative, self.vision, self.vae, picture, WIDTH, HEIGHT, self.frames, fps)
                .args
            )
        seen = self.vision.encode_image(picture, crop=False) if adapter_of(self.model).vision else None
        return wan.WanImageToVideo.execute(positive, negative, self.vae, WIDTH, HEIGHT, self.frames, 1, picture, seen).args


MADE = {}


@pytest.fixture(params=ALL)
def subject(request):
    return subject_of(request.param)


def subject_of(name):
    """As a running host makes it: in inference mode."""
    if name not in MADE:
        with torch.inference_mode():
            if name in LVDM:
                parts = FakeVision(lvdm_weights.RESAMPLER["embedding_dim"]), FakeText(lvdm_weights.UNET["context_dim"]), lvdm_weights.FRAMES
                MADE[name] = Subject(name, lvdm_tiny.model(name), family_models.FakeVAE(4, 8, 1, 2), *parts)
            else:
                MADE[name] = Subject(name, family_models.model(name), family_models.WAN21_VAE, FakeVision(1280), FakeText(8), 9)
    return MADE[name]


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    (tmp_path / "loras").mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path / "loras")], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three of twelve frames; one has a caption, one an empty one."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(3):
        g = torch.Generator().manual_seed(i)
        start, end = (torch.nn.functional.interpolate(torch.rand(1, 3, 4, 6, generator=g), (HEIGHT, WIDTH), mode="bilinear") for _ in range(2))
        clip = torch.cat([start + (end - start) * n / 11 for n in range(12)])
        video_file.write(folder / f"{i}.mp4", clip.movedim(1, -1), rate=8)
    (folder / "0.txt").write_text("a boat\n")
    (folder / "1.txt").write_text("")
    return folder


@torch.inference_mode()  # as the host runs nodes
def prepared_by_node(subject, videos, **changes):
    settings = {
        "folder": str(videos),
        "name": "set",
        "frames": subject.frames,
        "fps": FPS,
        "width": WIDTH,
        "height": HEIGHT,
        "clips_per_video": 1,
        "seed": 0,
        "flip": False,
        "flow": "none",
    }
    parts = {"model": subject.model, "vae": subject.vae, "clip_vision": subject.vision, "clip": subject.text, "prompt": "the sea"}
    return run(training_nodes.PrepareClips, **(settings | parts | changes))


def shape_of(subject):
    return (4, subject.frames, 4, 6) if subject.lvdm else (16, 3, 4, 6)


def random_clip(subject, i=0, tokens=7):
    """A Clip of this kind with random contents."""
    shape = shape_of(subject)
    draw = lambda k, *size: lvdm_weights.draw(size, 100 * i + k)
    image = draw(1, 4, 4, 6) if subject.lvdm else draw(1, *shape)
    embed = draw(2, 5, subject.vision.width) if adapter_of(subject.model).vision else None
    dropped = {"text": draw(4, 7, subject.text.width)} | ({"embed": draw(5, 5, subject.vision.width)} if subject.lvdm else {})
    return Clip(draw(0, *shape), image, embed, 0.0, draw(3, tokens, subject.text.width), dropped)


@pytest.fixture
def clips(subject, tmp_path):
    return random_set(subject, tmp_path / "random")


def random_set(subject, folder):
    settings = {"fps": FPS, "kind": adapter_of(subject.model).name}
    return prepared.prepare(folder, settings, range(3), lambda i: i, lambda i: random_clip(subject, i))


class FakeSet(list):
    """One random clip as a data set."""

    motion = [0.0]

    def __init__(self, subject):
        super().__init__([random_clip(subject)])
        self.shape, self.settings = shape_of(subject), {"fps": FPS, "kind": adapter_of(subject.model).name}


def shown(subject, clips, recipe, **how):
    """What the network gets in a training: a list of {"x": ..., name: ...}."""
    calls = []

    def note(network, args, kwargs):
        calls.append({"x": args[0].detach().clone(), "timesteps": args[1], **{k: v for k, v in kwargs.items() if k != "transformer_options" and v is not None}})

    hook = subject.model.model.diffusion_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        train.tune(subject.model, clips, recipe, train.TrainConfig(2, precision="fp32", checkpointing=False, **how))
    finally:
        hook.remove()
    return calls


# ---- what the network is shown --------------------------------------------------------


@pytest.mark.parametrize("dropped", [False, True])
def test_training_shows_the_network_what_sampling_shows_it(subject, videos, dropped):
    clips = prepared_by_node(subject, videos)[0]
    # each clip once, its condition as in the positive conditioning, or dropped as in the negative one
    calls = shown(subject, clips, Recipe(steps=3, dropout=float(dropped), ema=0.0))
    spec = cil_clips.ClipSpec(subject.frames, FPS, HEIGHT, WIDTH)
    width = subject.model.model.latent_format.latent_channels
    for step, call in enumerate(calls):
        number = training.clip_of(0, step, 3)
        picture = cil_clips.read(videos / f"{number}.mp4", spec, 0)[:1].float() / 255
        positive, negative, latent = subject.conditioning(picture, ["a boat", "", "the sea"][number])
        with torch.inference_mode():
            _, seen = sample(subject.model, positive, negative, latent, steps=1)
        wanted = {name: seen.of(name, int(dropped)) for name in seen.calls[0]}
        assert call["x"].shape == wanted["x"].shape
        near = lambda a, b: torch.allclose(a.float(), b.float(), atol=2e-3, rtol=2e-3)  # a set is kept in half precision
        assert near(call["x"][:, width:], wanted["x"][:, width:]), "the image beside the noisy latents"
        assert set(call) - {"timesteps", "num_video_frames"} == set(wanted)
        for name in set(wanted) - {"x"}:
            assert call[name].shape == wanted[name].shape and near(call[name], wanted[name]), name
        if subject.lvdm:
            assert call["num_video_frames"] == subject.frames and call["fps"][0] == (3 if "256" in subject.name else 8)
        # the noisy part: the example's, as the host scales it for the network at that timestep
        goal = trainable.objective(subject.model, 0, 1)
        e = training.batch_of(Recipe(), goal, clips, step)[0]
        process, host = goal.process, subject.model.get_model_object("model_sampling")
        in_network = (process.alpha(e.sigma) * e.clip.latents.float() + process.sigma(e.sigma) * e.eps)[None]
        in_network = in_network[0].movedim(0, 1) if subject.lvdm else in_network
        assert torch.allclose(call["x"][:, :width], in_network, atol=1e-3)
        assert torch.allclose(call["timesteps"], host.timestep(torch.tensor(e.sigma)).float().expand_as(call["timesteps"]))


@pytest.mark.parametrize("subject", FEW, indirect=True)
def test_timenoise_is_where_the_network_takes_its_image(subject, clips, monkeypatch):
    """Image latents (Wan: the first frame's alone); tokens as attention sees them, behind the network's own projection. Text and mask stay."""
    projected, network, vision = [], subject.model.model.diffusion_model, adapter_of(subject.model).vision
    if subject.lvdm:
        made = type(network).image_tokens
        monkeypatch.setattr(type(network), "image_tokens", lambda *args: projected.append(made(*args)) or projected[-1])
    else:
        see = lambda block, args, kwargs: projected.append(kwargs["context"][:, : kwargs["context_img_len"] or 0])
        hook = network.blocks[0].register_forward_pre_hook(see, with_kwargs=True)
    clean, noisy, both = (
        shown(subject, clips, Recipe(steps=2, batch=2, dropout=0.0, ema=0.0, noise=noise), tokens=tokens)
        for noise, tokens in ((None, False), (TimeNoise(5.0, 1.0), False), (TimeNoise(5.0, 1.0), vision))
    )
    if not subject.lvdm:
        hook.remove()
    if vision:
        given = [c["clip_fea"] for c in clean]
        for calls, seen in zip((clean, noisy, both), torch.stack(projected).detach().unflatten(0, (3, -1))):
            assert all(torch.equal(c["clip_fea"], other) for c, other in zip(calls, given, strict=True))  # the projection sees the clean picture
            calls[:] = [{**c, "clip_fea": tokens} for c, tokens in zip(calls, seen, strict=True)]
    width, latents = subject.model.model.latent_format.latent_channels, subject.name != "VideoCrafter1 512"
    goal = trainable.objective(subject.model, 0, 1, noised=adapter_of(subject.model).noised(False))
    for step, (a, b, c) in enumerate(zip(clean, noisy, both, strict=True)):
        levels = [e.level for e in training.batch_of(Recipe(batch=2, dropout=0.0, noise=TimeNoise(5.0, 1.0)), goal, clips, step)]
        assert torch.equal(a["x"][:, :width], b["x"][:, :width]) and torch.equal(a["context"], b["context"])
        gap, gap_both = b["x"][:, width:] - a["x"][:, width:], c["x"][:, width:] - a["x"][:, width:]
        if latents:
            assert torch.allclose(gap, gap_both, atol=1e-5)
            each = gap.unflatten(0, (2, -1)) if subject.lvdm else gap.movedim(1, 2)  # [2, T, C, h, w]
            for level, frames in zip(levels, each):
                image = frames[:, -width:]
                assert float(image[0].std()) == pytest.approx(level, rel=0.3)
                assert torch.equal(image[1:], image[:1].expand_as(image[1:])) if subject.lvdm else not image[1:].any() and not frames[:, :4].any()
        else:
            assert gap.numel() == 0
        if vision:
            moved, moved_both = ((other["clip_fea"] - a["clip_fea"]).unflatten(0, (2, -1)) for other in (b, c))
            assert (moved.abs() > 0.05).any() == (not latents)  # a step of training moves a resampler a little
            for level, tokens in zip(levels, moved_both):
                assert float(tokens[0].std()) == pytest.approx(level, rel=0.3)
                each_its_own = subject.name.startswith("DynamiCrafter")  # queries a frame; the others' tokens serve all frames
                assert torch.equal(tokens, tokens[:1].expand_as(tokens)) != each_its_own


@pytest.mark.parametrize("name", LVDM)
def test_the_loss_is_the_networks_own_with_zero_snr_and_dynamic_rescale(name):
    """weight ||D - x_0||^2 against ||F - target||^2 by the published tables, at the ends and between."""
    model = subject_of(name).model
    goal, sampling = trainable.objective(model, 0, 1), model.get_model_object("model_sampling")
    alpha, noise, s = published(next(v for v in VARIANTS if v.name == name))
    x0, eps, out = (torch.randn(1, 4, 2, 3, 3, generator=training.generator(k), dtype=torch.float64) for k in range(3))
    for t in (0, 150, 399, 700, 999):
        a, b, k = (float(table[t]) for table in (alpha, noise, s))
        sigma = sampling.sigmas[t : t + 1].double()
        x = goal.process.corrupt(x0, eps, sigma)
        got = goal.weight(sigma) * (sampling.calculate_denoised(sigma, out, x) - x0).square().mean()
        v = "DynamiCrafter 512" in name or "1024" in name
        target = a * eps - b * k * x0 if v else eps
        assert float(got) == pytest.approx(float((out - target).square().mean()), rel=1e-3), t
    levels = [goal.draw_sigma(training.generator(n)) for n in range(30)]
    assert set(levels) <= set(sampling.sigmas.tolist()) and goal.fraction(max(levels)) > 0.9


@pytest.mark.parametrize("name, low, high", [("Wan 2.2 14B I2V", 0.9, math.inf), ("Wan 2.2 14B I2V", 0.0, 0.9), ("DynamiCrafter 512", 5.0, 50.0)])
def test_only_the_levels_of_a_stage_are_trained(name, low, high):
    draw = lambda sigmas: [trainable.objective(subject_of(name).model, 0, 1, sigmas=sigmas).draw_sigma(training.generator(n)) for n in range(40)]
    every, some = draw(training.EVERY_SIGMA), draw((low, high))
    assert all(low <= s <= high for s in some) and len(set(some)) > 30
    assert [b for a, b in zip(every, some) if low <= a <= high] == [a for a in every if low <= a <= high]
    with pytest.raises(ValueError, match="noise levels run from .* to .*, but .* is to be trained"):
        train.check(subject_of(name).model, FakeSet(subject_of(name)), train.TrainConfig(sigmas=(high, low)))


@pytest.mark.parametrize("name", ["DynamiCrafter 512", "Wan 2.1 I2V"])
def test_texts_of_different_lengths_go_into_one_batch(name):
    subject = subject_of(name)
    goal = trainable.objective(subject.model, 0, 1)
    sigma = goal.draw_sigma(training.generator(1))
    examples = [training.Example(random_clip(subject, i, tokens), lvdm_weights.draw(shape_of(subject), i), sigma) for i, tokens in enumerate((7, 14, 9))]
    with modes.gradients(), modes.loaded(subject.model.clone()), torch.no_grad():
        denoise = trainable.Denoiser(subject.model, FPS, None)
        together = training.denoising_loss(denoise, goal, examples)
        alone = [float(training.denoising_loss(denoise, goal, [e])) for e in examples]
    assert float(together) == pytest.approx(sum(alone) / 3, rel=1e-4)


# ---- the LoRA -------------------------------------------------------------------------

SETTINGS = QUICK | {"beta_m": 2.0, "condition_dropout": 0.3, "ema": 0.5, "motion_bucket_id": 0, "P_std": 1.0}


def trained(subject, clips, **changes):
    return run(training_nodes.TimeNoiseTrain, model=subject.model, clips=clips, **(SETTINGS | changes))


@torch.inference_mode()
def sampled(subject, model):
    positive, negative, latent = subject.conditioning(family_models.picture(seed=9), "x")
    return sample(model, positive, negative, latent)[0]


@pytest.mark.parametrize("subject", FEW, indirect=True)
def test_a_training_is_watched_in_every_kind_of_latents(subject, clips, folders):
    samples = trained(subject, clips, sample_every=1, steps=1)[3]
    assert len(samples) > 1 and samples.shape[2] == 2 * 160 and samples[:, :90].std() > 0.01  # before, step 1


@pytest.mark.parametrize("subject", FEW, indirect=True)
def test_the_lora_comes_back_through_the_hosts_loader_with_identical_output(subject, clips, folders):
    plain = sampled(subject, subject.model)
    with_lora, lora, *_ = trained(subject, clips)
    tuned = sampled(subject, with_lora)
    assert torch.isfinite(tuned).all() and not torch.allclose(plain, tuned, rtol=1e-3, atol=1e-4)
    save_file(lora, folders / "loras" / "mine.safetensors")
    with torch.inference_mode():
        again = host_nodes.LoraLoaderModelOnly().load_lora_model_only(subject.model, "mine.safetensors", 1.0)[0]
    assert torch.equal(sampled(subject, again), tuned)
    assert torch.equal(sampled(subject, subject.model), plain)
    on = trained(subject, clips, existing_lora="mine.safetensors", steps=1)[1]
    assert on.keys() == lora.keys()


@pytest.mark.parametrize("name", ["DynamiCrafter 256", "Wan 2.1 I2V"])
def test_checkpointing_changes_nothing_and_every_layer_learns(name, folders):
    subject = subject_of(name)
    clips = random_set(subject, folders / "random")
    plain, saving = (trained(subject, clips, gradient_checkpointing=on, ema=0.0)[1] for on in (False, True))
    assert plain.keys() == saving.keys() and all(torch.allclose(plain[k], saving[k], atol=1e-6) for k in plain)
    still = [k for k, v in plain.items() if k.endswith("lora_down.weight") and not v.any()]  # they begin at zero
    assert not still, still


# ---- preparation and bad input --------------------------------------------------------


@pytest.fixture
def said(monkeypatch):
    notes = []
    monkeypatch.setattr(training_nodes, "say", lambda node, text: notes.append(text))
    return notes


def test_captions_and_the_prompt_are_kept_once(videos, said, folders):
    subject = subject_of("DynamiCrafter 512")
    made, report = prepared_by_node(subject, videos, clips_per_video=2)
    assert "2 videos have a caption" in said[-1] and json.loads(report)["captions"] == 2
    assert made.names == ["0.mp4", "0.mp4", "1.mp4", "1.mp4", "2.mp4", "2.mp4"]
    text_of = lambda text: subject.text.encode_from_tokens_scheduled(text)[0][0][0].half().float()
    for clip, text in zip(made, ["a boat", "a boat", "", "", "the sea", "the sea"], strict=True):
        assert torch.equal(clip.text, text_of(text)) and torch.equal(clip.dropped["text"], text_of(""))
    (shard,) = made.folder.glob("*")
    assert set(load_file(shard)) == {"latents", "image", "embed", "text.0", "text.1", "text.2", "dropped.text", "dropped.embed"}
    with pytest.raises(ValueError, match="begun with other settings \\(texts\\)"):
        prepared_by_node(subject, videos, clips_per_video=2, prompt="the moon")


def test_dynamicrafter_and_videocrafter_share_a_set_but_not_with_svd(videos, tmp_path):
    made = prepared_by_node(subject_of("DynamiCrafter 512"), videos)[0]
    model = subject_of("VideoCrafter1 512").model
    train.check(model, made, train.TrainConfig())
    svd = prepared.prepare(tmp_path / "svd", {"fps": FPS}, [0], lambda i: i, lambda i: Clip(torch.zeros(4, 4, 4, 6), torch.zeros(4, 4, 6), torch.zeros(1, 8)))
    with pytest.raises(ValueError, match="prepared for SVD, and lack what LVDM is told"):
        train.check(model, svd, train.TrainConfig())


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("DynamiCrafter 512", {"clip": None}, "reads a text, but no text encoder came: connect clip.*Captions are .txt files"),
        ("VideoCrafter1 512", {"clip_vision": None}, "through an image encoder, but none came: connect clip_vision"),
        ("Wan 2.1 I2V", {"clip_vision": None}, "through an image encoder"),
        ("Wan 2.2 14B I2V", {"frames": 8}, "4 n \\+ 1 frames, but 8 were given: take 5 or 9"),
    ],
)
def test_what_is_missing_is_said(videos, name, changes, message):
    with pytest.raises(ValueError, match=message):
        prepared_by_node(subject_of(name), videos, **changes)


def test_wan22_needs_no_image_encoder_and_has_no_tokens(videos):
    subject = subject_of("Wan 2.2 14B I2V")
    made = prepared_by_node(subject, videos, clip_vision=None)[0]
    assert made[0].embed is None
    with pytest.raises(ValueError, match="has none: switch image_tokens off"):
        train.check(subject.model, made, train.TrainConfig(tokens=True))
    with pytest.raises(ValueError, match="prepared without an image encoder"):
        train.check(subject_of("Wan 2.1 I2V").model, made, train.TrainConfig())


@pytest.mark.parametrize("name", ["Wan 2.1 Fun control", "Wan 2.2 Fun control", "Wan 2.1 Camera", "Wan VACE", "Wan 2.2 5B", "Hunyuan I2V concat", "LTXV"])
def test_what_cannot_be_trained_is_refused(name):
    with pytest.raises(ValueError, match="training is there for .*Wan 2.1 / 2.2 14B image-to-video, but a .* came"):
        adapter_of(family_models.model(name))
