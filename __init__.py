"""Image-to-video motion for ComfyUI: early start, Analytic-Init, TimeNoise and the leakage probe."""

from pathlib import Path

WEB_DIRECTORY = "./nodes/web"


def register_folders():
    """models/cil_moments (then the packaged files) and models/cil_flow; what another source set up is kept."""
    import folder_paths

    models = Path(folder_paths.models_dir)
    wanted = {
        "cil_moments": ([models / "cil_moments", Path(__file__).parent / "moments"], {".safetensors", ".pt"}),
        "cil_flow": ([models / "cil_flow"], {".safetensors", ".pth"}),
    }
    for name, (paths, suffixes) in wanted.items():
        folders, known = folder_paths.folder_names_and_paths.get(name, ([], set()))
        folders = [*folders, *(str(p) for p in paths if str(p) not in folders)]
        folder_paths.folder_names_and_paths[name] = (folders, {*known, *suffixes})


async def comfy_entrypoint():
    from comfy_api.latest import ComfyExtension

    from .nodes import NODES

    register_folders()

    class MotionPack(ComfyExtension):
        async def get_node_list(self):
            return NODES

    return MotionPack()
