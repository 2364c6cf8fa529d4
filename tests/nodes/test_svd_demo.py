"""The landscape's models of SVD's kind in the host's own graph, and what their training shows them."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from node_calls import run

from cil_pack.demo.landscape import clips, graph, latents, measure, scenes, svd
from cil_pack.demo.landscape.train import KINDS
from cil_pack.demo.latents import socket
from cil_pack.demo.model import patcher_of
from cil_pack.nodes.demo import SVD, DemoScene, LoadDemoModel
from cil_pack.nodes.demo_clips import LANDSCAPE, DemoClips
from cil_pack.nodes.host.models import model_family
from cil_pack.nodes.training import model as trainable


def test_the_nodes_offer_the_checkpoints_that_are_there():
    assert set(SVD) == set(svd.CHECKPOINTS) and all(file.is_file() for file in svd.CHECKPOINTS.values())


@torch.inference_mode()
@pytest.mark.parametrize("checkpoint", SVD)
def test_an_artists_graph_draws_a_balloon_that_stays_one(checkpoint):
    patcher, vision, vae, _ = run(LoadDemoModel, checkpoint)
    assert model_family(patcher).key == "landscape"
    first, *_, scene = run(DemoScene, 3, 127, scenes.FRAMES, "landscape")
    conditions = graph.conditioned(vision, vae, first)
    frames = graph.sampled(patcher, vae, conditions, 1, 12)
    assert frames.shape == (scenes.FRAMES, scenes.SIZE, scenes.SIZE, 3) and (frames[0] - first[0]).abs().mean() < 0.06
    drawn = measure.track(frames.movedim(-1, 1)[None], scene)
    assert drawn.lost < 0.2


def test_the_decoder_draws_the_code_of_the_one_balloon():
    scene = scenes.sample(2, torch.Generator().manual_seed(7), alike=True)
    pixels = scenes.render(scene, 1)[:, 0]
    decoder = latents.decoder()
    decoder.load_state_dict({k: v.float() for k, v in socket(svd.DECODER, "decoder.").items()})
    with torch.no_grad():
        drawn = decoder(latents.encode(pixels)).clamp(0, 1)
    assert (drawn - pixels).square().mean().sqrt() < 0.05


def test_demo_clips_are_those_that_no_training_had():
    _, vision, *_ = run(LoadDemoModel, "leaking")
    (made,) = run(DemoClips, vision, 2, 0, None, LANDSCAPE)
    assert made[0].latents.shape == (4, scenes.FRAMES, 16, 16) and made.motion == [scenes.OPEN] * 2
    assert torch.equal(made[1].latents, clips.of_training(vision, 2, 0)[1].latents)


def test_training_shows_the_network_what_the_hosts_graph_shows_it():
    """In bfloat16's products, so nearly."""
    model = KINDS["svd"].fresh(0)
    with torch.no_grad():
        for p in model.diffusion_model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    patcher = patcher_of(model)
    _, vision, vae, _ = run(LoadDemoModel, SVD[0])
    taught = clips.of_training(vision, 1, 0)
    first = scenes.render(taught.scenes, 1)[0].movedim(1, -1)
    positive, negative, latent = graph.conditioned(vision, vae, first)
    noise = comfy.sample.prepare_noise(latent["samples"], 3)
    sigma = 5.0
    with torch.inference_mode():
        host = comfy.sample.sample_custom(
            patcher, noise, 1.0, comfy.samplers.sampler_object("euler"), torch.tensor([sigma, 0.0]), positive, negative, latent["samples"], disable_pbar=True
        )
    example = trainable.training.Example(taught[0], None, 0.0)
    with torch.no_grad():
        mine = trainable.Denoiser(patcher, scenes.FPS, None)(sigma * noise.movedim(0, 1)[None], torch.tensor([sigma]), [example])
    torch.testing.assert_close(host.movedim(0, 1)[None] * latents.SCALE, mine, atol=0.1, rtol=0.05)
