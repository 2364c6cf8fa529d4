"""Conditional image leakage: the method of arXiv 2406.15735, without any host.

    forward.py         x_t = alpha_t x_0 + sigma_t eps (Eq. 1), and M <-> sigma
    moments.py         E[X_0] and tr(Cov)/d: the object, its file, fitting it to a latent
    analytic_init.py   the KL-optimal start (Eq. 5, Prop. 1)
    schedules.py       where the steps lie once the start is earlier (Alg. 1)
    calibration.py     leakage by the model's calibration, with bands and a verdict (Sec. 3.1)
    views.py           what of a clip the calibration looks at: all, first-order motions, bands
    levels.py          noise levels by their signal-to-noise ratio
    motion.py          motion scores of a clip (App. B)
    timenoise.py       noise on the conditional image (Eq. 6)
    training.py        losses, seeded examples and the resumable run (Alg. 2, App. D)
    prepared.py        a training's clips, prepared once

Only torch, numpy, einops, safetensors and the standard library are imported here; nothing
in this folder knows ComfyUI. sigma is the only time variable: fractions of T are
translated at the edge, by `forward`.
"""
