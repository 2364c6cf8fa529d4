"""By which words a page finds each node, which inputs it folds away, and where it lists it for beginners.

Fields of 2026: a host that does not have them yet is not given them.
"""

import functools

from comfy_api.latest import io

STILL = ("still", "static", "frozen", "slow", "no motion", "does not move", "more motion", "静止", "不动", "运动太慢", "运动幅度")
LEAK = ("leak", "conditional image leakage", "CIL", "条件图像泄漏")
FEW_STEPS = ("lightx2v", "lightning", "4 steps", "four steps", "加速 LoRA")
SVD, WAN, LVDM = ("svd", "stable video diffusion"), ("wan", "wan 2.1", "wan 2.2", "i2v"), ("dynamicrafter", "videocrafter")
MOMENTS = ("moments", "mean and variance", "analytic init", "矩")
DEMO = ("demo", "example", "no download", "演示")

# node: what a user types who wants it
WORDS = {
    "CILEarlyStart": (*STILL, *LEAK, *SVD, *WAN, *LVDM, "ltx", "hunyuan", "analytic init", "start at step", "提前起点"),
    "CILMotionGain": (*STILL, *WAN, *SVD, *FEW_STEPS, "ltx", "amplify motion", "motion strength", "amplitude", "运动增益"),
    "CILMotionBucket": ("motion bucket", "motion_bucket_id", *SVD, "amount of motion", "运动桶"),
    "CILMotionDial": ("dial", *STILL, *FEW_STEPS, *WAN, *SVD, "ask for motion", "tune", "auto", "运动旋钮"),
    "CILPreflight": (*STILL, "why", "check", "settings", "diagnose", *WAN, *SVD, "检查"),
    "CILMotionSlider": (*STILL, *WAN, *FEW_STEPS, "dymos", "attention", "slider", "运动滑块"),
    "CILAdaptiveLowPass": ("ALG", *STILL, "low pass", "blur", *WAN, "cogvideox", "低通"),
    "CILAdaptiveLowPassGuider": ("ALG", "CFG guider", "low pass", *WAN, "低通"),
    "CILLowPassCondition": (*LEAK, *STILL, "low pass", "blur the image", "低通"),
    "TimeNoiseCondition": (*LEAK, *STILL, "noise augmentation", "augmentation level", "noise on the image", *SVD, "minimax", "加噪"),
    "TruncatedSigmaSchedule": ("sigmas", "scheduler", "start", "time shift", "调度"),
    "AnalyticInitLatent": ("analytic init", "initial noise", "SamplerCustomAdvanced", *SVD, "初始噪声"),
    "CILStartNoise": ("initial noise", "FrameInit", "ConsistI2V", "PYoCo", "progressive noise", "初始噪声"),
    "CILFreeInit": ("FreeInit", "initial noise", "low frequency", "初始噪声"),
    "LeakageProbe": (*LEAK, "probe", "measure", "why", "探针"),
    "CILStartSweep": ("sweep", "compare", "grid", "find the best start", "扫描"),
    "CILMotionScore": ("motion", "measure", "optical flow", "flicker", "vbench", "dynamic degree", "运动评分"),
    "CILCompareClips": ("side by side", "before and after", "compare videos", "对比"),
    "CILLoadMoments": MOMENTS,
    "CILEstimateMoments": (*MOMENTS, "estimate", "data set"),
    "CILSaveMoments": MOMENTS,
    "CILPrepareClips": ("train", "data set", "encode clips", "fine-tune", "训练"),
    "CILTimeNoiseTrain": ("train", "fine-tune", "lora", *LEAK, *SVD, *WAN, "训练"),
    "CILLoadDynamiCrafter": (*LVDM, "checkpoint"),
    "CILDynamiCrafterConditioning": (*LVDM, "image to video"),
    "CILDynamiCrafterWrapperNoise": (*LVDM, "init noise", "kijai"),
    "CILLoadDemoModel": DEMO,
    "CILDemoScene": DEMO,
    "CILDemoClips": DEMO,
    "CILSimulatedLeak": (*DEMO, *LEAK, "模拟"),
    "CILDemoCompare": (*DEMO, "side by side", "compare", "对比"),
}
# node: the inputs that a first try leaves alone
ADVANCED = {
    "CILEarlyStart": ("layout",),
    "CILMotionGain": ("end_as", "end", "shape", "protect", "curve_strength"),
    "CILMotionSlider": ("share", "share_of"),
    "TimeNoiseCondition": ("a", "image_tokens", "tell_model", "time"),
    "CILAdaptiveLowPass": ("interval_in", "schedule", "decay"),
    "CILAdaptiveLowPassGuider": ("interval_in", "schedule", "decay"),
    "CILMotionDial": ("most_price", "seeds", "preview_steps", "export_as"),
    "CILTimeNoiseTrain": (
        "accumulation", "gradient_checkpointing", "condition_dropout", "ema", "clip_norm", "weight_decay", "P_mean", "P_std", "sigma_from", "sigma_to",
    ),
}  # fmt: skip
ESSENTIALS = {"CILEarlyStart": "Video Tools", "CILMotionGain": "Video Tools", "CILMotionDial": "Video Tools"}


def findable(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node class itself, its schema with what this host knows of the above."""
    define = node.define_schema.__func__

    @functools.wraps(define)
    def found(cls):
        schema = define(cls)
        more = {"search_aliases": list(WORDS.get(schema.node_id, ())), "essentials_category": ESSENTIALS.get(schema.node_id)}
        for name, value in more.items():
            if name in io.Schema.__dataclass_fields__:
                setattr(schema, name, value)
        for one in schema.inputs:
            if one.id in ADVANCED.get(schema.node_id, ()) and hasattr(one, "advanced"):
                one.advanced = True
        return schema

    node.define_schema = classmethod(found)
    return node
