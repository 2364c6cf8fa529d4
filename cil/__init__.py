"""Conditional image leakage: the method of arXiv 2406.15735, without any host.

    forward.py         x_t = alpha_t x_0 + sigma_t eps (Eq. 1), and M <-> sigma
    moments.py         E[X_0] and tr(Cov)/d: the object, its file, fitting it to a latent
    analytic_init.py   the KL-optimal start (Eq. 5, Prop. 1)
    schedules.py       where the steps lie once the start is earlier (Alg. 1)
    calibration.py     leakage by the model's calibration, with bands and a verdict (Sec. 3.1)
    views.py           what of a clip the calibration looks at: all, first-order motions, bands
    levels.py          noise levels by their signal-to-noise ratio
    probe.py           one-step predictions of a clip under noise, and their motion (Eq. 4)
    motion.py, flow.py motion scores of a clip (App. B), and the optical flows that they use
    timenoise.py       noise on the conditional image (Eq. 6)
    low_pass.py, adaptive_low_pass.py   the image blurred instead, the training-free rival
    estimate.py        moments of one's own clips; clips.py reads them
    training.py        losses, seeded examples and the resumable run (Alg. 2, App. D)
    prepared.py        a training's clips, prepared once

Only torch, numpy, safetensors and the standard library are needed here (PyAV, OpenCV and
torchvision where a clip is read or its flow measured); nothing in this folder knows ComfyUI.
sigma is the only time variable: fractions of T are translated at the edge, by `forward`.
"""
