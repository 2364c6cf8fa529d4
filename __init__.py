"""Image-to-video motion for ComfyUI: early start, Analytic-Init, TimeNoise and the leakage probe."""

import logging
from pathlib import Path

log = logging.getLogger("cil")

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


def warn_of_a_copy(nodes):
    """A warning where another folder has brought these nodes already: the host would replace them silently."""
    import nodes as host

    from .nodes.host.notes import loggable

    mine = Path(__file__).parent.name
    known = [host.NODE_CLASS_MAPPINGS.get(node.define_schema().node_id) for node in nodes]
    others = {getattr(node, "RELATIVE_PYTHON_MODULE", "another pack").removeprefix("custom_nodes.") for node in known if node}
    for other in sorted(others):
        text = f"Two copies of this pack are installed, in the folders '{other}' and '{mine}' of custom_nodes; the nodes of '{mine}' are used. Remove one of the two and start ComfyUI again."
        log.warning(loggable(text))


async def comfy_entrypoint():
    from comfy_api.latest import ComfyExtension

    from .nodes import NODES

    register_folders()
    warn_of_a_copy(NODES)

    class MotionPack(ComfyExtension):
        async def get_node_list(self):
            return NODES

    return MotionPack()
