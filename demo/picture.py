"""The moving picture of README: `python run.py demo`, then `python run.py do demo.picture`."""

from pathlib import Path

FOLDER = Path(__file__).parent


def main(arguments=None):
    import av

    video = max((FOLDER.parent / "demo-output").glob("*.mp4"), key=lambda p: p.stat().st_mtime)
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
        milliseconds = round(1000 / float(container.streams.video[0].average_rate))
    path = FOLDER / "compare.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, quality=70)
    print(f"{path.name}: {len(frames)} frames, {path.stat().st_size // 1024} KiB")
