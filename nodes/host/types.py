"""Names for what the host hands over, in type hints. Its classes differ between hosts and packs, so these say what is meant and check nothing."""

from typing import Any, TypeAlias

Model: TypeAlias = Any  # MODEL: a ModelPatcher
BaseModel: TypeAlias = Any  # comfy.model_base.BaseModel, the network and what belongs to it
ModelSampling: TypeAlias = Any  # a noise process of comfy.model_sampling
Vae: TypeAlias = Any
ClipVision: TypeAlias = Any
Guider: TypeAlias = Any  # comfy.samplers.CFGGuider, or another pack's
Sampler: TypeAlias = Any  # comfy.samplers.Sampler
Conditioning: TypeAlias = list  # [[embedding, {name: value}], ...]
NodeIdLike: TypeAlias = str | None  # a node's id in its graph; None outside one
Executor: TypeAlias = Any  # the rest of the host's chain of wrappers; class_obj: whose it is
