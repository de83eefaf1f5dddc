"""Checkpoints of one run on Orbax, numbered by round; a damaged one is recognised before it is read."""

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mamba_jax.policy import Arrays
from mamba_jax.processes import leads
from mamba_jax.run_folder import write_atomically

META = "meta"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message is one sentence."""


class Checkpoints:
    """The checkpoints in one folder.

    A checkpoint holds named items, each a flat dictionary of arrays, and a small JSON object. Orbax writes it under a
    temporary name until it is complete, so a half-written one is never read. The two newest are kept: should the
    newest be damaged later, the one before it is still there.
    """

    def __init__(self, folder: Path, *, read_only: bool = False):
        """Opens the folder. Unless `read_only` it is made if need be and leftovers of interrupted saves are removed."""
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else 2,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=False,  # training donates its arrays: they must be written before it goes on
            read_only=read_only,
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """Number of the newest complete checkpoint, None where there is none."""
        return self.manager.latest_step()

    def save(self, number: int, items: dict[str, Arrays], meta: dict[str, Any]) -> None:
        """Writes a checkpoint; returns when it is complete. `meta` holds anything that JSON can. Of several processes
        all must call this, and their arrays be spread over the devices of all.

        Raises CheckpointError where that fails, OSError where the checksums cannot be written.
        """
        saves = {name: ocp.args.StandardSave(arrays) for name, arrays in items.items()}
        try:
            self.manager.save(number, args=ocp.args.Composite(**saves, **{META: ocp.args.JsonSave(meta)}), force=True)
            self.manager.wait_until_finished()
        except Exception as error:  # a full disk is a ValueError of TensorStore
            what = f"The checkpoint {self.folder / str(number)} cannot be written ({first_line(error)})"
            raise CheckpointError(f"{what}; the one before is kept.") from error
        if leads():
            record = {"number": number, "crc32": file_checksums(self.folder / str(number))}
            write_atomically(self.checksum_file, json.dumps(record, indent=1))

    def restore(self, number: int, items: dict[str, dict[str, Any]]) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """Reads the named items, given the shapes, dtypes and, if need be, shardings of their arrays, and the JSON
        object.

        Raises CheckpointError where the files are damaged or do not fit the shapes.
        """
        self.check_files(number, {META, *items})
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        restores = {}
        for name, shapes in items.items():
            placed = {path: x.update(sharding=x.sharding or device) for path, x in shapes.items()}
            restores[name] = ocp.args.StandardRestore(placed)
        try:
            found = self.manager.restore(number, args=ocp.args.Composite(**restores, **{META: ocp.args.JsonRestore()}))
        except Exception as error:  # Orbax raises many kinds, Exception itself among them
            raise CheckpointError(self.unreadable(number, first_line(error))) from error
        return {name: found[name] for name in items}, found[META]

    def check_files(self, number: int, items: set[str]) -> None:
        """Compares the files of some items with the checksums noted when they were written, where these exist."""
        try:
            record = json.loads(self.checksum_file.read_text()) if self.checksum_file.exists() else {}
        except ValueError:
            raise CheckpointError(
                f"{self.checksum_file} is damaged: delete it to go on without a check of the checkpoint's files."
            ) from None
        if record.get("number") != number:
            return
        folder = self.folder / str(number)
        noted = {name: value for name, value in record["crc32"].items() if name.split("/")[0] in {name, *items}}
        wrong = sorted(name for name, value in noted.items() if not same_file(folder / name, value))
        if wrong:
            raise CheckpointError(self.unreadable(number, f"{wrong[0]} is missing or was changed after it was written"))

    def unreadable(self, number: int, reason: str) -> str:
        """The sentence for a checkpoint that cannot be read."""
        others = [step for step in self.manager.all_steps() if step != number]
        advice = f"move it away to go on from checkpoint {max(others)}" if others else "move it away to start again"
        return f"The checkpoint {self.folder / str(number)} cannot be read ({reason}); {advice}."

    @property
    def checksum_file(self) -> Path:
        """Checksums of the newest checkpoint."""
        return self.folder.parent / "checksums.json"


def first_line(error: Exception) -> str:
    """What an exception says first, in at most 200 characters."""
    return str(error).strip().split("\n")[0][:200]


def file_checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of every file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


def same_file(path: Path, value: int) -> bool:
    """Whether a file is there and has this CRC-32."""
    return path.is_file() and checksum(path) == value


def checksum(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            value = zlib.crc32(piece, value)
    return value
