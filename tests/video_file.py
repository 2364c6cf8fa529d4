"""A video file for the tests that need one."""

import av


def write(path, clip, rate=6, lossless=False):
    """IMAGE frames [t, H, W, 3] as H.264 at `rate` frames a second. lossless: every pixel comes back as it is, to 8 bits."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options={"crf": "0"}) if lossless else container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "rgb24" if lossless else "yuv420p"
        for frame in clip:
            picture = av.VideoFrame.from_ndarray((frame.clamp(0, 1) * 255).round().byte().numpy(), format="rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
