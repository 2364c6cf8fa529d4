"""The demo of Wan's kind in the host's own graph: its VAE, its conditioning, its sampler; and its training's clips."""

import comfy.sample
import pytest
import torch
from node_calls import run
from safetensors.torch import save_file

import nodes
from cil_pack.demo.landscape import measure, scenes
from cil_pack.demo.landscape.wan import clips, graph, latents, model
from cil_pack.nodes.demo import WAN, DemoScene, LoadDemoModel
from cil_pack.nodes.demo_clips import DemoClips
from cil_pack.nodes.demo_leak import DemoCompare
from cil_pack.nodes.host.models import model_family
from cil_pack.nodes.training import model as trainable
from cil_pack.nodes.training import train

SCENES = clips.drawn(2, torch.Generator().manual_seed(5))
CLIP = scenes.render(SCENES[:1], clips.FRAMES)  # [1, 13, 3, 128, 128]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(MODEL, VAE) of the host, of random weights: none of them zero, so that a mistake anywhere shows."""
    network = model.build().diffusion_model
    model.initialise(network, 0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    path = tmp_path_factory.mktemp("wan") / "random.safetensors"
    save_file({name: p.contiguous() for name, p in network.state_dict().items()}, path)
    return model.load(str(path))


def test_the_hosts_encoder_gives_the_code(demo):
    _, vae = demo
    code = vae.encode(CLIP[0].movedim(1, -1)) * latents.SCALE
    assert code.shape == (1, 16, 4, 16, 16)
    torch.testing.assert_close(code, latents.encode(CLIP), atol=1e-4, rtol=0)


def test_the_hosts_decoder_draws_four_frames_of_a_latent_as_the_decoder_for_one_does(demo):
    _, vae = demo
    code = latents.encode(CLIP)
    one = latents.decoder()
    one.load_state_dict({k: v.float() for k, v in model.decoder_weights().items()})
    with torch.no_grad():
        frames = one(latents.frame_cells(code)[0] * latents.GAIN)
    host = vae.decode(code / latents.SCALE)[0].movedim(-1, 1)
    assert host.shape == CLIP[0].shape
    torch.testing.assert_close(host, frames, atol=5e-3, rtol=0)  # TAEHV's clamp bends the latents a little
    assert (frames - CLIP[0]).square().mean().sqrt() < 0.05


def test_the_code_is_orthonormal_and_its_first_latent_apart():
    rows = latents.MATRIX.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(latents.CHANNELS))
    still = latents.encode(CLIP[:, :1].expand_as(CLIP))
    torch.testing.assert_close(still[:, :, 1], still[:, :, 2])
    assert (still[:, :, 0] - still[:, :, 1]).square().mean() > 0.2 * still[:, :, 1].square().mean()
    torch.testing.assert_close(latents.frame_cells(still)[:, :, :3], latents.cells(CLIP)[:, :1, :3].expand(-1, clips.FRAMES, -1, -1, -1))


def test_training_shows_the_network_what_the_hosts_graph_shows_it(demo):
    patcher, vae = demo
    assert model_family(patcher).key == "Wan"
    positive, negative, latent = graph.conditioned(vae, CLIP[0, :1].movedim(1, -1))
    noise = comfy.sample.prepare_noise(latent["samples"], 3)
    sigmas = torch.tensor([0.9, 0.0])  # one step: the sample is the prediction
    sampler = nodes.comfy.samplers.sampler_object("euler")
    host = comfy.sample.sample_custom(patcher, noise, 1.0, sampler, sigmas, positive, negative, latent["samples"], disable_pbar=True)
    taught = clips.WanClips(SCENES[:1], "t")
    torch.testing.assert_close(taught[0].latents[None], latents.encode(CLIP), atol=3e-3, rtol=0)  # kept in half precision
    example = trainable.training.Example(taught[0], noise[0], 0.9)
    with torch.no_grad():
        mine = trainable.Denoiser(patcher, scenes.FPS, None)(0.9 * noise, torch.tensor([0.9]), [example])
    torch.testing.assert_close(host * latents.SCALE, mine, atol=2e-2, rtol=1e-2)


def test_a_mirrored_clip_is_the_code_of_the_mirrored_pictures():
    taught = clips.WanClips(SCENES, "t")
    assert len(taught) == 4
    torch.testing.assert_close(taught[3].latents, latents.encode(scenes.render(SCENES[1:], clips.FRAMES).flip(-1))[0], atol=3e-3, rtol=0)
    assert taught[3].latents.ne(taught[1].latents).any()


def test_the_packs_trainer_takes_it(demo):
    train.check(demo[0], clips.WanClips(SCENES, "t"), train.TrainConfig(rank=0, precision="fp32", checkpointing=False, bucket=0))


def test_a_strange_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="cannot be read"):
        model.load(str(path))


def test_the_nodes_offer_the_checkpoints_that_are_there():
    assert set(WAN) == set(model.CHECKPOINTS) and all(file.is_file() for file in model.CHECKPOINTS.values())


@torch.inference_mode()
@pytest.mark.parametrize("checkpoint", WAN)
def test_an_artists_graph_draws_the_balloon(checkpoint):
    patcher, clip_vision, vae, text = run(LoadDemoModel, checkpoint)
    first, true, other, scene = run(DemoScene, 3, 127, clips.FRAMES, "landscape")
    assert true.shape == other.shape == (clips.FRAMES, scenes.SIZE, scenes.SIZE, 3)
    assert torch.equal(first[0], true[0]) and torch.equal(true[0], other[0]) and (true[-1] - other[-1]).abs().mean() > 0.01
    positive, negative, latent = graph.conditioned(vae, first)
    assert torch.equal(text[0][0], positive[0][0])
    samples = nodes.KSampler().sample(patcher, 1, 12, 1.0, "euler", "simple", positive, negative, latent, 1.0)[0]["samples"]
    frames = vae.decode(samples)[0]
    assert (frames[0] - first[0]).abs().mean() < 0.05
    drawn = measure.track(frames.movedim(-1, 1)[None], scene)
    assert drawn.lost < 0.5
    strips = run(DemoCompare, scene, frames, true, "plain", "the truth")[1]
    assert strips.shape[-1] == 3


@pytest.mark.parametrize("bucket", [0, 60, 255])
def test_a_scene_of_the_landscape_moves_as_much_as_its_bucket_says_and_stays_in_the_frame(bucket):
    *_, scene = run(DemoScene, 5, bucket, clips.FRAMES, "landscape")
    assert float(scenes.bucket(scene.motion)) == bucket
    places = scenes.path(scene, clips.FRAMES)
    assert places.min() >= scenes.MARGIN - 1e-3 and places.max() <= scenes.SIZE - scenes.MARGIN + 1e-3


def test_a_scene_of_the_disks_is_refused_where_a_landscape_is_needed():
    *_, clip, _, scene = run(DemoScene, 5, 60, 3)
    _, clip_vision, *_ = run(LoadDemoModel, "leaking")
    for node, given in ((DemoCompare, (scene, clip, clip, "a", "b")), (DemoClips, (clip_vision, 2, 0, scene))):
        with pytest.raises(ValueError, match="a scene of the landscape"):
            run(node, *given)


def test_demo_clips_of_wans_kind_are_those_that_its_training_had_not():
    _, clip_vision, *_ = run(LoadDemoModel, "leaking")
    (made,) = run(DemoClips, clip_vision, 2, 0, None, "Wan")
    assert made[0].latents.shape == (16, 4, 16, 16)
    assert torch.equal(made[1].latents, clips.fair(2, 0)[1].latents)
