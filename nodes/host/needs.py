"""All of the host's internals that the pack takes by name, and what does not work where one is missing.

Looked up once when the host starts: a moved or renamed function is a sentence in the log then,
with the host's version, and no traceback in the middle of somebody's graph.
"""

import importlib
import logging

NEEDS = {
    "all nodes of this pack": [
        "comfy_api.latest.ComfyExtension", "comfy_api.latest.io", "comfy_api.latest.ui", "comfy_execution.graph.ExecutionBlocker",
        "comfy.model_management.throw_exception_if_processing_interrupted", "comfy.model_management.processing_interrupted",
        "comfy.model_management.InterruptProcessingException",
        "comfy.model_management.get_torch_device", "comfy.model_management.intermediate_device", "comfy.model_management.load_models_gpu",
        "comfy.model_management.load_model_gpu", "comfy.model_management.free_memory", "comfy.model_management.get_free_memory",
        "comfy.utils.ProgressBar", "comfy.utils.PROGRESS_BAR_ENABLED", "comfy.utils.load_torch_file", "comfy.utils.common_upscale",
        "comfy.utils.calculate_parameters", "comfy.utils.weight_dtype", "comfy.utils.reshape_mask",
        "folder_paths.folder_names_and_paths", "folder_paths.models_dir", "folder_paths.get_folder_paths", "folder_paths.get_filename_list",
        "folder_paths.get_full_path", "folder_paths.get_full_path_or_raise", "folder_paths.get_input_directory", "folder_paths.get_output_directory",
        "folder_paths.get_user_directory",
    ],
    "Early Start, Motion Gain, TimeNoise, Low-Pass, Motion Slider and everything else that sets to work in a sampler": [
        "comfy.patcher_extension.WrappersMP.OUTER_SAMPLE", "comfy.patcher_extension.WrappersMP.APPLY_MODEL",
        "comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL", "comfy.patcher_extension.WrappersMP.CALC_COND_BATCH",
        "comfy.patcher_extension.WrapperExecutor.new_class_executor", "comfy.patcher_extension.add_wrapper_with_key",
        "comfy.patcher_extension.get_all_wrappers", "comfy.model_patcher.ModelPatcher", "comfy.model_patcher.create_model_options_clone",
        "comfy.model_sampling.EPS", "comfy.model_sampling.ModelSamplingDiscrete", "comfy.conds.CONDRegular", "comfy.conds.CONDConstant", "comfy.conds.CONDNoiseShape", "node_helpers.conditioning_set_values",
        "comfy.model_base.BaseModel", "comfy.model_base.ModelType.V_PREDICTION", "comfy.model_base.model_sampling",
    ],
    "Start Sweep, Motion Dial, FreeInit, Leakage Probe and the guiders": [
        "comfy.sample.prepare_noise", "comfy.sample.sample", "comfy.sample.fix_empty_latent_channels", "comfy.samplers.calculate_sigmas",
        "comfy.samplers.CFGGuider.predict_noise", "comfy.samplers.KSAMPLER", "comfy.samplers.Sampler", "comfy.samplers.KSampler.SAMPLERS",
        "comfy.samplers.KSampler.SCHEDULERS", "comfy.samplers.SCHEDULER_NAMES", "latent_preview.prepare_callback",
    ],
    "training and LoRAs": [
        "comfy.lora.load_lora", "comfy.lora.model_lora_keys_unet", "comfy.lora_convert.convert_lora", "comfy.sd.load_lora_for_models",
        "comfy.weight_adapter.LoRAAdapter", "comfy.ldm.modules.attention.attention_pytorch", "comfy.k_diffusion.sampling.sample_euler",
        "latent_preview.Latent2RGBPreviewer",
    ],
    "the models that this pack brings (DynamiCrafter, VideoCrafter1, the demo)": [
        "comfy.ldm.modules.attention.BasicTransformerBlock", "comfy.ldm.modules.attention.CrossAttention",
        "comfy.ldm.modules.attention.SpatialTransformer", "comfy.ldm.modules.attention.optimized_attention",
        "comfy.ldm.modules.diffusionmodules.openaimodel.ResBlock", "comfy.ldm.modules.diffusionmodules.openaimodel.Downsample",
        "comfy.ldm.modules.diffusionmodules.openaimodel.Upsample", "comfy.ldm.modules.diffusionmodules.openaimodel.apply_control",
        "comfy.ldm.modules.diffusionmodules.util.timestep_embedding", "comfy.ops.cast_to_input", "comfy.model_base.SVD_img2vid",
        "comfy.supported_models.SD20", "comfy.latent_formats", "comfy.clip_vision.Output", "comfy.clip_vision.load", "comfy.clip_vision.load_clipvision_from_sd", "comfy.sd.VAE", "comfy.sd.CLIP", "comfy.sd.load_clip",
        "comfy.sd.load_checkpoint_guess_config", "comfy.sd.CLIPType.STABLE_DIFFUSION", "comfy.sd.CLIPType.WAN", "comfy.model_base.WAN21",
    ],
}  # fmt: skip
SOME_HOSTS = {"comfy.utils.pack_latents", "comfy.utils.unpack_latents"}  # asked for with a way round


def is_there(name: str) -> bool:
    """Whether a dotted name leads to something: a module, or what hangs on one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError:
            return False
        return True
    return False


def missing() -> dict[str, list[str]]:
    """{what does not work: names that this host lacks}, empty where all is there."""
    gone = {what: [name for name in names if not is_there(name)] for what, names in NEEDS.items()}
    return {what: names for what, names in gone.items() if names}


def version() -> str:
    try:
        from comfyui_version import __version__

        return __version__
    except ImportError:
        return "of unknown version"


def warnings() -> list[str]:
    """A sentence for each part that will not work on this host."""
    return [
        f"ComfyUI {version()} has no {', '.join(names)}: {what} will not work. Update this pack, or use a ComfyUI that it was tested on (0.3.64 to 0.33)."
        for what, names in missing().items()
    ]


def tell() -> None:
    """Each of them in the log."""
    for text in warnings():
        logging.getLogger("cil").warning(text)
