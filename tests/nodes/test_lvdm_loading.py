"""Checkpoints in the released layouts through the loader node, and the words for files that are something else."""

import inspect
import logging

import comfy.sd
import folder_paths
import lvdm_tiny
import pytest
import torch
from comfy_execution.graph import ExecutionBlocker
from safetensors.torch import load_file, save_file

from cil_pack.nodes.dynamicrafter import LoadDynamiCrafter
from cil_pack.nodes.host.models import model_family
from cil_pack.nodes.lvdm import checkpoint
from cil_pack.nodes.lvdm.model import VARIANTS

VARIANT_NAMES = [v.name for v in VARIANTS]
UNET = checkpoint.UNET


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """models/checkpoints, empty."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "checkpoints", ([str(folder)], {".safetensors", ".ckpt"}))
    return folder


def load(name, variant=checkpoint.AUTOMATIC):
    return LoadDynamiCrafter.PREPARE_CLASS_CLONE(None).execute(name, variant).args


def same_weights(model, tensors):
    """Whether the model's UNet and resampler hold exactly these (in its own precision)."""
    found = model.model.diffusion_model.state_dict()
    wanted = {k.removeprefix(UNET).replace("framestride_embed", "fps_embedding"): v for k, v in tensors.items() if k != "scale_arr"}
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k].to(found[k].dtype)) for k in wanted)


@pytest.mark.parametrize("variant", VARIANT_NAMES)
@pytest.mark.parametrize("form", ["full.ckpt", "half.safetensors", "deepspeed.ckpt"])
def test_every_variant_loads_from_every_form_and_is_recognised(folder, variant, form):
    tensors = lvdm_tiny.tensors(variant)
    if form == "half.safetensors":
        tensors = {k: v.half() for k, v in tensors.items()}
        save_file(tensors, folder / form)
    elif form == "full.ckpt":
        torch.save({"state_dict": tensors, "epoch": 3, "global_step": 7}, folder / form)
    else:
        torch.save({"module": {"_forward_module." + k: v for k, v in tensors.items()}, "dp_world_size": 8, "mp_world_size": 1}, folder / form)
    model, clip, vision, vae = load(form)
    assert model.model.model_config.variant.name == variant
    assert same_weights(model, tensors)
    assert all(isinstance(part, ExecutionBlocker) and form in part.message for part in (clip, vision, vae))
    family = model_family(model)
    assert family.key == variant.split()[0] and family.start == (0.96, "fraction")
    if form == "half.safetensors":
        assert model.model.get_dtype() in (torch.float16, torch.float32)  # a CPU may compute in fp32


def test_512_and_1024_are_told_apart_by_tables_then_name_then_choice(folder):
    for base, name in ((0.7, "DynamiCrafter 512"), (0.3, "DynamiCrafter 1024")):
        save_file(lvdm_tiny.tensors(name), folder / "model.safetensors")
        assert load("model.safetensors")[0].model.model_config.variant.base_scale == base
    bare = {k: v for k, v in lvdm_tiny.tensors("DynamiCrafter 512").items() if k != "scale_arr"}
    save_file(bare, folder / "dynamicrafter_1024_pruned.safetensors")
    assert load("dynamicrafter_1024_pruned.safetensors")[0].model.model_config.variant.name == "DynamiCrafter 1024"
    (folder / "dynamicrafter_512_v1").mkdir()
    save_file(bare, folder / "dynamicrafter_512_v1" / "model.safetensors")
    assert load("dynamicrafter_512_v1/model.safetensors")[0].model.model_config.variant.name == "DynamiCrafter 512"
    save_file(bare, folder / "model.safetensors")
    with pytest.raises(ValueError, match="may be DynamiCrafter 512, DynamiCrafter 1024.*Choose it in `variant`"):
        load("model.safetensors")
    assert load("model.safetensors", "DynamiCrafter 512")[0].model.model_config.variant.base_scale == 0.7
    with pytest.raises(ValueError, match="cannot be VideoCrafter1 512: its tensors are those of DynamiCrafter 512, DynamiCrafter 1024"):
        load("model.safetensors", "VideoCrafter1 512")


def test_a_unet_without_the_long_prefix_loads(folder):
    tensors = {k.removeprefix(UNET): v for k, v in lvdm_tiny.tensors("VideoCrafter1 512").items()}
    save_file(tensors, folder / "bare.safetensors")
    assert same_weights(load("bare.safetensors")[0], tensors)


def changed(**replace):
    """A DynamiCrafter 512 checkpoint without the tensors whose names hold a key of `replace`, or with it renamed."""
    out = {}
    for name, value in lvdm_tiny.tensors("DynamiCrafter 512").items():
        for old, new in replace.items():
            if old in name:
                name = name.replace(old, new) if new is not None else None
                break
        if name is not None:
            out[name] = value
    return out


WRONG = {
    "is a Stable Video Diffusion checkpoint.*Image Only Checkpoint Loader": lambda: changed(temopral_conv="time_stack"),
    "without LVDM's temporal layers.*8 input channels.*Load Checkpoint": lambda: changed(temopral_conv=None),
    "text-to-video model of the same family": lambda: changed(to_k_ip=None),
    "lacks the image resampler .*image_proj_model": lambda: changed(image_proj_model=None),
    "is incomplete: 2 tensors of the UNet are missing, such as time_embed": lambda: changed(**{"time_embed.2": None}),
    "is incomplete: it lacks the tensor 'out.2.weight'": lambda: changed(**{".out.2.weight": None}),
    "holds no UNet .first.weight": lambda: {"first.weight": torch.zeros(2)},
}


@pytest.mark.parametrize("words", WRONG)
def test_another_file_is_an_error_that_says_what_came(folder, words):
    save_file(WRONG[words](), folder / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors.*" + words):
        load("other.safetensors")


@pytest.mark.parametrize("form", ["cut.safetensors", "cut.ckpt"])
def test_a_truncated_file_is_an_error(folder, form):
    tensors = lvdm_tiny.tensors("DynamiCrafter 512")
    save_file(tensors, folder / form) if form.endswith("safetensors") else torch.save(tensors, folder / form)
    whole = (folder / form).read_bytes()
    (folder / form).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{form} cannot be read: .*incomplete"):
        load(form)


def test_a_file_that_holds_one_tensor_is_an_error(folder):
    torch.save(torch.zeros(3), folder / "one.ckpt")
    with pytest.raises(ValueError, match="one.ckpt (cannot be read|holds no UNet)"):
        load("one.ckpt")


def test_a_ckpt_is_never_executed(folder):
    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    torch.save({"state_dict": lvdm_tiny.tensors("DynamiCrafter 512"), "trap": Trap()}, folder / "trap.ckpt")
    with pytest.raises(ValueError, match="trap.ckpt cannot be read"):
        load("trap.ckpt")


def test_the_saved_layout_is_the_released_one(folder):
    tensors = lvdm_tiny.tensors("DynamiCrafter 512")
    save_file(tensors, folder / "first.safetensors")
    model = load("first.safetensors", "DynamiCrafter 512")[0]
    base = model.model
    takes = inspect.signature(base.state_dict_for_saving).parameters  # newer hosts collect the network's tensors themselves
    saved = base.state_dict_for_saving(*[base.diffusion_model.state_dict()][: "unet_state_dict" in takes])
    assert {k for k in saved if k != "v_pred"} == tensors.keys() - {"scale_arr"}
    save_file({k: v for k, v in saved.items() if k != "v_pred"}, folder / "second_512.safetensors")
    assert same_weights(load("second_512.safetensors")[0], load_file(folder / "first.safetensors"))


def test_encoders_and_vae_of_a_full_checkpoint_come_out(folder, caplog):
    """A few tensors of each, of the released names and shapes: they must arrive in the host's own modules."""
    draw = lambda *shape: torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).half()
    text = {"ln_final.weight": draw(1024), "transformer.resblocks.3.mlp.c_fc.bias": draw(4096)}
    vision = {
        "class_embedding": draw(1280),
        "transformer.resblocks.0.attn.in_proj_weight": draw(3840, 1280),
        "transformer.resblocks.30.ln_1.weight": draw(1280),
    }
    vae = {
        "decoder.conv_in.weight": draw(512, 4, 3, 3),
        "encoder.conv_in.weight": draw(128, 3, 3, 3),
        "encoder.down.2.downsample.conv.weight": draw(512, 512, 3, 3),
    }
    vae |= {"quant_conv.weight": draw(8, 8, 1, 1), "post_quant_conv.weight": draw(4, 4, 1, 1)}
    full = lvdm_tiny.tensors("DynamiCrafter 512")
    full |= {f"cond_stage_model.model.{k}": v for k, v in text.items()}
    full |= {f"embedder.model.visual.{k}": v for k, v in vision.items()}
    full |= {f"first_stage_model.{k}": v for k, v in vae.items()}
    save_file(full, folder / "full.safetensors")
    with caplog.at_level(logging.CRITICAL):
        _, clip, clip_vision, loaded_vae = load("full.safetensors")
    text_model = clip.cond_stage_model.clip_h.transformer.text_model
    assert torch.equal(text_model.final_layer_norm.weight.half(), text["ln_final.weight"])
    assert torch.equal(text_model.encoder.layers[3].mlp.fc1.bias.half(), text["transformer.resblocks.3.mlp.c_fc.bias"])
    assert clip.cond_stage_model.clip_h.layer == "hidden" and clip.cond_stage_model.clip_h.layer_idx == -2
    vision_model = clip_vision.model.vision_model
    assert torch.equal(vision_model.embeddings.class_embedding.half(), vision["class_embedding"])
    assert torch.equal(vision_model.encoder.layers[0].self_attn.k_proj.weight.half(), vision["transformer.resblocks.0.attn.in_proj_weight"][1280:2560])
    assert torch.equal(loaded_vae.first_stage_model.decoder.conv_in.weight.cpu().half(), vae["decoder.conv_in.weight"])


def test_a_lora_changes_the_layers_it_names(folder):
    save_file(lvdm_tiny.tensors("DynamiCrafter 512"), folder / "model.safetensors")
    model = load("model.safetensors")[0]
    layer = "input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip"
    weight = model.model.diffusion_model.get_submodule(layer).weight
    lora = {
        "lora_unet_" + layer.replace(".", "_") + ".lora_up.weight": torch.ones(weight.shape[0], 2),
        "lora_unet_" + layer.replace(".", "_") + ".lora_down.weight": torch.ones(2, weight.shape[1]),
    }
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    before = weight.clone()
    patched.patch_model()
    assert torch.allclose(patched.model.diffusion_model.get_submodule(layer).weight - before, torch.full_like(before, 2.0), atol=1e-5)
    patched.unpatch_model()
    assert torch.equal(weight, before)
