"""MuJoCo and MJX; importing this module imports both, which takes some seconds."""

import contextlib
import io
from pathlib import Path

with contextlib.redirect_stdout(io.StringIO()):  # MJX prints notes about back ends that are not installed
    import mujoco
    from mujoco import mjx

__all__ = ["load", "mjx", "mujoco"]


def load(asset: str) -> mujoco.MjModel:
    """The model in a file of the folder `assets`."""
    return mujoco.MjModel.from_xml_path(str(Path(__file__).parent / "assets" / asset))
