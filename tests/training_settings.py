"""Settings of a TimeNoise Train that takes seconds."""

from cil_pack.nodes.training import nodes

QUICK = {
    "tuning": nodes.TIMENOISE, "beta_m": 5.0, "a": 5.0, "rank": 2, "learning_rate": 1e-2, "steps": 3, "batch": 2, "accumulation": 1, "seed": 0,
    "precision": "fp32", "gradient_checkpointing": False, "condition_dropout": 0.1, "ema": 0.0, "clip_norm": 1.0, "weight_decay": 0.01, "motion_bucket_id": 20,
    "P_mean": 0.0, "P_std": 1.2, "existing_lora": nodes.NEW_LORA, "resume": True, "sample_every": 0, "probe_clips": 0,
}  # fmt: skip
