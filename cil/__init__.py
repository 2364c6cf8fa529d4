"""Conditional image leakage: the method of arXiv 2406.15735, without any host.

    forward.py         x_t = alpha_t x_0 + sigma_t eps (Eq. 1), and M <-> sigma
    moments/           E[X_0] and tr(Cov)/d: the object, fitting it to a latent, its files and the authors', what they print through
    analytic_init.py   the KL-optimal start (Eq. 5, Prop. 1)
    initial_noise.py   FrameInit, FreeInit, progressive and mixed noise (Table 2)
    schedules.py       where the steps lie once the start is earlier (Alg. 1)
    calibration.py     leakage by the model's calibration, with its band (Sec. 3.1)
    verdict.py         what that proves, and where to start
    views.py           what of a clip the calibration looks at: all, first-order motions, bands
    levels.py          noise levels by their signal-to-noise ratio
    probe.py           one-step predictions of a clip under noise, and their motion (Eq. 4)
    motion.py, flow.py motion scores of a clip (App. B), and the optical flows that they use
    consistency.py     motion that flicker cannot feed, camera and subject; amount.py: the same as the dial reads it
    motion_gain.py     what a prediction moves, multiplied; dial.py: the search for the setting that gives an amount
    attention_bias.py  less or more attention to the first frame (DyMoS)
    timenoise.py       noise on the conditional image (Eq. 6)
    low_pass.py, adaptive_low_pass.py   the image blurred instead, the training-free rival
    estimate.py        moments of one's own clips; clips.py reads them, sources.py finds them
    training/          losses, noise levels, seeded examples and the resumable run (Alg. 2, App. D)
    prepared.py        a training's clips, prepared once
    randomness.py      every random draw, by its key
    files.py, resumable.py, processes.py   whole files or none, work that goes on, and the processes that share it

Only torch, numpy, safetensors, filelock and the standard library are needed here (PyAV, OpenCV,
torchvision, SciPy where a clip is read, its flow measured, a band drawn); nothing in this folder knows ComfyUI.
sigma is the only time variable: fractions of T are translated at the edge, by `forward`.
"""
