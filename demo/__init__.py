"""The demo: procedural clips with a known exact denoiser, and two small models trained on them."""
