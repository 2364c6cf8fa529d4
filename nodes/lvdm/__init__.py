"""DynamiCrafter and VideoCrafter1 as models of the host: network, noise process, loading.

Both are "LVDM" networks: Stable Diffusion 2.1's UNet with temporal layers between the
spatial ones. The host has its parts, but not this arrangement of them.
"""
