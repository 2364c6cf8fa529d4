"""The headless commands: prepare, train a LoRA and all weights, two processes, kill and resume."""

import json
import signal
import subprocess
import sys
import time

import family_models
import lvdm_tiny
import pytest
import torch
import video_file
from commands import command, do, environment
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cil_pack.cil import prepared
from cil_pack.cil.training import Clip
from cil_pack.demo import model, scenes

SETTINGS = ["--steps", "4", "--precision", "fp32", "--no-checkpointing", "--beta-m", "5", "--P-mean", "1", "--ema", "0.9", "--learning-rate", "0.001"]


@pytest.fixture(scope="module")
def root_path():
    return sys.modules["cil_run"].ROOT


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Five small clips, as prepared; nothing is learnt here that would need real ones."""

    def clip(i):
        g = torch.Generator().manual_seed(i)
        draw = lambda *shape: torch.randn(*shape, generator=g)
        return Clip(draw(4, 2, 4, 4), 5 * draw(4, 4, 4), draw(1, model.CONTEXT), 20.0)

    folder = tmp_path_factory.mktemp("set")
    prepared.prepare(folder, {"fps": 6.0}, range(5), lambda i: i, clip)
    return folder


@pytest.fixture(scope="module")
def single(clips, tmp_path_factory):
    """All weights, one process, batch 4, never stopped."""
    out = tmp_path_factory.mktemp("single") / "demo.safetensors"
    do("nodes.training.train", clips, "--model", "demo:healthy", "--full", "--batch", "4", "--out", out, *SETTINGS)
    return out


def losses(path):
    """Of the last updates, as the written file tells them."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["cil_training"])["losses"]


def two_processes(root_path, clips, out, *arguments, settings=SETTINGS, run=subprocess.run, **options):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(sys.modules["cil_run"].free_port())]
    arguments = ["nodes.training.train", clips, "--model", "demo:healthy", "--full", "--batch", "2", "--out", out, *settings, *arguments]
    options = options or {"capture_output": True, "text": True, "timeout": 900, "env": environment()}
    return run(command(root_path, *arguments, launcher=launcher), **options)


def test_all_weights_come_out_as_a_checkpoint_of_the_demo(single):
    source, tuned = load_file(model.CHECKPOINTS["healthy"]), load_file(single)
    assert {k: (v.shape, v.dtype) for k, v in tuned.items()} == {k: (v.shape, v.dtype) for k, v in source.items()}
    assert not torch.equal(tuned["out.2.weight"], source["out.2.weight"])
    network = model.load(str(single))[0].model.diffusion_model
    assert torch.equal(network.out[2].weight, tuned["out.2.weight"].float())
    assert not list(single.parent.glob("*.state*"))


@pytest.fixture(scope="module")
def shares(root_path, clips, tmp_path_factory):
    """All weights, spread over two processes (FSDP), never stopped -> (file, what it printed)."""
    out = tmp_path_factory.mktemp("shares") / "demo.safetensors"
    done = two_processes(root_path, clips, out, "--shard")
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@pytest.mark.parametrize("kind", ["DDP", "FSDP"])
def test_two_processes_equal_one_with_twice_the_batch(single, root_path, clips, tmp_path, kind, request):
    if kind == "FSDP":
        out, printed = request.getfixturevalue("shares")
        assert "each of 2 processes holds 50% of the weights" in printed
    else:
        out = tmp_path / "two.safetensors"
        done = two_processes(root_path, clips, out)
        assert done.returncode == 0, done.stdout + done.stderr
        printed = done.stdout
    assert "step 4 of 4: loss" in printed, printed
    assert losses(out)[0] == pytest.approx(losses(single)[0], rel=1e-5)  # of the same weights
    assert losses(out)[:3] == pytest.approx(losses(single)[:3], rel=1e-4)
    assert losses(out) == pytest.approx(losses(single), rel=1e-3)
    one, two, source = load_file(single), load_file(out), load_file(model.CHECKPOINTS["healthy"])
    norm = lambda a, b: sum(float((a[k].float() - b[k].float()).square().sum()) for k in a) ** 0.5
    # not to the bit: sums in another order, of which AdamW's first steps take the sign alone,
    # so that weights whose gradient is nothing but rounding go the other way
    assert norm(one, two) < 0.15 * norm(one, source), (norm(one, two), norm(one, source))
    # and those are few: 1.2 % when this was written
    moved = {k: (one[k].float() - source[k].float()).abs() for k in one}
    astray = sum(int(((one[k].float() - two[k].float()).abs() > 0.5 * moved[k]).logical_and(moved[k] > 1e-3).sum()) for k in one)
    assert astray < 0.02 * sum(int((m > 1e-3).sum()) for m in moved.values()), astray


def test_killed_and_resumed_is_the_uninterrupted_one(single, root_path, clips, tmp_path, capsys):
    out, state = tmp_path / "again.safetensors", tmp_path / "again.state.safetensors"
    arguments = [clips, "--model", "demo:healthy", "--full", "--batch", "4", "--out", out, *SETTINGS]
    process = subprocess.Popen(
        command(root_path, "nodes.training.train", *arguments), env=environment(CIL_SAVE_EVERY="0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.time() + 600
    while time.time() < until and not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists() and not out.exists()
    assert 1 <= len(load_file(state)["losses"]) < 4
    do("nodes.training.train", *arguments)
    assert "going on from again.state.safetensors" in capsys.readouterr().out
    one, again = load_file(single), load_file(out)
    assert all(torch.equal(one[k], again[k]) for k in one)


def test_shares_that_were_stopped_go_on_to_the_bit(shares, root_path, clips, tmp_path):
    """Weights, AdamW and average are put together for the state file, and cut again when it is read.

    The second time activations are computed again in the backward pass, which must change nothing.
    """
    out, state = tmp_path / "again.safetensors", tmp_path / "again.state.safetensors"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment(CIL_SAVE_EVERY="0")}
    process = two_processes(root_path, clips, out, "--shard", run=subprocess.Popen, **quiet)
    until = time.time() + 600
    while time.time() < until and not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()  # the launcher ends its processes
    process.wait()
    assert 1 <= len(load_file(state)["losses"]) < 4 and not out.exists()
    done = two_processes(root_path, clips, out, "--shard", settings=[s for s in SETTINGS if s != "--no-checkpointing"])
    assert "going on from again.state.safetensors" in done.stdout, done.stdout + done.stderr
    one, again = load_file(shares[0]), load_file(out)
    assert all(torch.equal(one[k], again[k]) for k in one) and losses(out) == losses(shares[0])


def test_videos_to_a_lora(tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    clip = scenes.render(scenes.sample(1, torch.Generator().manual_seed(0)), 3)[0, ..., :64, :64]
    video_file.write(videos / "a.mp4", clip.movedim(1, -1), rate=3)
    size = ["--frames", "3", "--width", "64", "--height", "64", "--flow", "none"]
    do("nodes.training.prepare", videos, "--model", "demo:healthy", "--out", tmp_path / "set", *size)
    assert "1 clips, latents of 4 x 3 x 8 x 8" in capsys.readouterr().out
    out = tmp_path / "lora.safetensors"
    do("nodes.training.train", tmp_path / "set", "--model", "demo:healthy", "--rank", "2", "--out", out, *SETTINGS)
    lora, layers = load_file(out), model.build().diffusion_model
    wanted = {f"diffusion_model.{n}" for n, m in layers.named_modules() if getattr(m, "weight", None) is not None and m.weight.ndim >= 2}
    assert {k.removesuffix(".alpha") for k in lora if k.endswith(".alpha")} == wanted and len(lora) == 3 * len(wanted)
    assert f"LoRA of {len(wanted)} layers after 4 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nodes.training.train", "/no/such", "--model", "demo:healthy", "--out", "x"], "no prepared data set at /no/such"),
        (["nodes.training.train", "SET", "--model", "/no/model", "--out", "x"], "no checkpoint at /no/model"),
        (["nodes.training.train", "SET", "--model", "demo:healthy", "--out", "x", "--beta-m", "-1"], "beta_m > 0 and a > 0"),
        (["nodes.training.train", "SET", "--model", "demo:healthy", "--out", "x", "--full", "--shard"], "start it by torchrun"),
        (["nodes.training.prepare", "EMPTY", "--model", "demo:healthy", "--out", "x"], "holds no videos"),
        (["nodes.training.train", "SET", "--model", "demo:/no/such", "--out", "x"], "no checkpoint at /no/such"),
        (["nodes.training.train", "SET", "--model", "demo:TEXT", "--out", "x"], "cannot be read as a checkpoint of the demo model"),
        (["nodes.training.train", "SET", "--model", "demo:MOMENTS", "--out", "x"], "is no checkpoint of the demo model: its '[a-z0-9._]+' is"),
    ],
)
def test_errors_are_one_line(clips, root, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.safetensors").write_text("no tensors")
    names = {"SET": clips, "EMPTY": tmp_path / "empty", "x": tmp_path / "x"}
    names |= {"demo:TEXT": f"demo:{tmp_path}/text.safetensors", "demo:MOMENTS": f"demo:{root}/moments/demo.safetensors"}
    with pytest.raises(SystemExit, match=message):
        do(*(names.get(a, a) for a in arguments))
    assert not (tmp_path / "x").exists()


def test_the_layout_of_an_image_only_checkpoint_is_kept(tmp_path):
    """SVD's: the network under model.diffusion_model., VAE and image encoder beside it, untouched."""
    from cil_pack.nodes.training.train import save_checkpoint

    made = model.load("healthy")[0]
    network = {k: v.clone() for k, v in made.model.diffusion_model.state_dict().items()}
    beside = {"first_stage_model.decoder.conv_in.weight": torch.randn(2, 2), "conditioner.embedders.0.open_clip.model.visual.proj": torch.randn(3).half()}
    source = {f"model.diffusion_model.{k}": v.half() for k, v in network.items()} | beside
    save_file(source, tmp_path / "svd.safetensors")
    trained = {k: v + 0.5 for k, v in network.items()}
    save_checkpoint(trained, made, str(tmp_path / "svd.safetensors"), tmp_path / "tuned.safetensors", {"format": "pt"})
    written = load_file(tmp_path / "tuned.safetensors")
    assert {k: v.dtype for k, v in written.items()} == {k: v.dtype for k, v in source.items()}
    assert all(torch.equal(written[k], v) for k, v in beside.items())
    again = model.build().load_model_weights(written, "model.diffusion_model.").diffusion_model.state_dict()
    assert all(torch.allclose(again[k], trained[k].half().float()) for k in trained)
    with pytest.raises(ValueError, match="has no '.*': the trained weights do not fit"):
        save_checkpoint({"no.such": torch.zeros(1)}, made, str(tmp_path / "svd.safetensors"), tmp_path / "x.safetensors", {})
    assert not (tmp_path / "x.safetensors").exists()


# ---- DynamiCrafter and Wan ------------------------------------------------------------


def random_set(folder, kind, shape, image, embed, text):
    """A prepared set of this kind with random contents."""

    def clip(i):
        draw = lambda *size: torch.randn(*size, generator=torch.Generator().manual_seed(i))
        words = draw(*text)
        return Clip(
            draw(*shape),
            draw(*image),
            None if embed is None else draw(*embed),
            0.0,
            words,
            {"text": words} | ({} if kind == "Wan I2V" else {"embed": draw(*embed)}),
        )

    prepared.prepare(folder, {"fps": 8.0, "kind": kind}, range(2), lambda i: i, clip)
    return folder


def test_a_checkpoint_of_dynamicrafter_is_trained(tmp_path, capsys):
    """512 and 1024 have the same tensors: the name tells. All weights come out in the released layout."""
    file = tmp_path / "dynamicrafter_512.safetensors"
    source = lvdm_tiny.tensors("DynamiCrafter 512") | {"posterior_variance": torch.randn(5)}
    save_file({k: v.contiguous() for k, v in source.items()}, file)
    clips = random_set(tmp_path / "set", "LVDM", (4, 4, 8, 12), (4, 8, 12), (5, 20), (7, 24))
    out = tmp_path / "lora.safetensors"
    do("nodes.training.train", clips, "--model", file, "--rank", "2", "--image-tokens", "--out", out, *SETTINGS)
    assert "layers after 4 steps" in capsys.readouterr().out
    assert all(torch.isfinite(v).all() for v in load_file(out).values())
    do("nodes.training.train", clips, "--model", file, "--full", "--out", tmp_path / "full.safetensors", *SETTINGS)
    tuned = load_file(tmp_path / "full.safetensors")
    assert {k: v.shape for k, v in tuned.items()} == {k: v.shape for k, v in source.items()}
    assert not torch.equal(tuned["image_proj_model.latents"], source["image_proj_model.latents"])
    assert torch.equal(tuned["posterior_variance"], source["posterior_variance"])


def test_a_diffusion_model_file_of_wan_is_trained(tmp_path, capsys):
    tiny = family_models.TINY["Wan 2.2 14B I2V"]
    config = type("Wan", (tiny.config,), {"unet_config": {}})({**tiny.unet, "dim": 128, "num_heads": 1, "ffn_dim": 64, "freq_dim": 256, "text_dim": 4096})
    config.set_inference_dtype(torch.float32, None)
    network = config.get_model({}).diffusion_model
    family_models.randomise(network)
    save_file(network.state_dict(), tmp_path / "wan.safetensors")
    clips = random_set(tmp_path / "set", "Wan I2V", (16, 3, 8, 8), (16, 3, 8, 8), None, (7, 4096))
    do("nodes.training.train", clips, "--model", tmp_path / "wan.safetensors", "--rank", "2", "--out", tmp_path / "lora.safetensors", *SETTINGS)
    assert "layers after 4 steps" in capsys.readouterr().out
    lora = load_file(tmp_path / "lora.safetensors")
    assert "diffusion_model.blocks.0.self_attn.q.lora_up.weight" in lora and all(torch.isfinite(v).all() for v in lora.values())
    with pytest.raises(SystemExit, match="brings no VAE: give the model's own \\(--vae\\)"):
        do("nodes.training.prepare", tmp_path, "--model", tmp_path / "wan.safetensors", "--out", tmp_path / "none")
