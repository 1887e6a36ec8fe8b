"""What a run leaves behind to go on from (a checkpoint) and to share (its weights), never half-written.

A checkpoint is one `.pt` of plain tensors, numbers, strings, lists and dicts, loaded with
`weights_only=True`; weights to share are `weights.safetensors` with a `weights.json` beside it. Everything
is written aside in the same folder, flushed to the disk and renamed, so that a reader sees the old file or
the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from train.run.errors import DreamdriveError, describe_os_error, explain_os_errors, one_line

_SCALARS = (bool, int, float, str, type(None))


def write_aside(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write `path` through `write(file)` so that it is never seen half-written; the folder must exist.

    Raises `DreamdriveError` when the disk is full or refuses; the old file is then as it was, and no other
    left.
    """
    # One fixed name: what a killed process leaves is overwritten by the next write instead of piling up.
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        cause = _os_error_behind(error) if isinstance(error, Exception) else None
        if cause is None:
            raise
        raise DreamdriveError(describe_os_error(cause, f"cannot write {path}")) from error
    _sync_folder(path.parent)


def write_text_aside(path: Path, text: str) -> None:
    """`write_aside` for a text file in UTF-8."""
    write_aside(path, lambda file: file.write(text.encode()))


def write_json_aside(path: Path, value: object) -> None:
    """`write_aside` for a JSON file of plain values."""
    write_text_aside(path, json.dumps(value, indent=1) + "\n")


def _os_error_behind(error: BaseException | None) -> OSError | None:
    """The `OSError` that `error` is or hides: `torch.save` puts a RuntimeError over a failed write."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system lets a folder be synchronised."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any, where: str) -> Any:
    """`value` with its dicts, lists and tensors made plain; an error names the first part that is not."""
    # `type(...)`, not isinstance: numpy.float64 is a float and would be pickled as a numpy object.
    if type(value) in _SCALARS:
        return value
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        tensor = value.detach()
        # A view would drag the whole storage it looks into along to the file.
        is_view = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
        return tensor.clone() if is_view else tensor
    if type(value) in (list, tuple):
        parts = [_plain(part, f"{where}[{index}]") for index, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    if type(value) in (dict, OrderedDict):
        for key in value:
            if type(key) not in (str, int):
                raise DreamdriveError(
                    f"checkpoint: {where}: the key {key!r} is neither text nor a whole number"
                )
        return {key: _plain(part, f"{where}.{key}" if where else str(key)) for key, part in value.items()}
    kind = type(value)
    raise DreamdriveError(
        f"checkpoint: {where or 'the state'}: holds a {kind.__module__}.{kind.__qualname__}, "
        "expected plain tensors, numbers, strings, lists and dicts"
    )


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` as one `.pt` file, all or nothing.

    `state` may hold tensors, bool, int, float, str, None, lists, tuples and dicts with text or int keys,
    nested freely. Raises `DreamdriveError` naming the key path of anything else (numpy scalars too), or
    when the disk is full; the checkpoint that was there stays whole.
    """
    plain = _plain(dict(state), "")
    write_aside(path, lambda file: torch.save(plain, file))


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, without unpickling objects, its tensors on `map_location`.

    Raises `DreamdriveError` when the file is missing, cut short, broken or not a checkpoint.
    """
    if not path.is_file():
        raise DreamdriveError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums it stores
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged} does not match")
        state = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a broken file can fail in any way; torch names no common base
        reason = one_line(error).split(". ")[0][:160] or type(error).__name__
        raise DreamdriveError(
            f"{path}: broken, cut short or not a checkpoint of dreamdrive ({reason})"
        ) from error
    if not isinstance(state, dict):
        raise DreamdriveError(f"{path}: holds a {type(state).__name__}, expected the dict of a checkpoint")
    return state


def save_weights(
    folder: Path, state_dict: Mapping[str, torch.Tensor], meta: Mapping[str, Any], name: str = "weights"
) -> None:
    """Write `weights.safetensors` and beside it `weights.json`: `meta`, the tensors' shapes, a SHA-256.

    Another `name` stands in the place of "weights". `meta` must be JSON: text, numbers, lists, dicts.
    Raises `DreamdriveError` for anything else and on a full disk.
    """
    # A clone each: safetensors refuses tensors that share memory, and views.
    tensors = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in state_dict.items()
    }
    data = safetensors.torch.save(tensors, metadata={"format": "pt"})
    description = {
        "meta": dict(meta),
        "sha256": hashlib.sha256(data).hexdigest(),
        "tensors": {key: {"shape": list(t.shape), "dtype": _dtype_name(t)} for key, t in tensors.items()},
    }
    try:
        text = json.dumps(description, indent=1)
    except (TypeError, ValueError) as error:
        raise DreamdriveError(
            f"{folder / f'{name}.json'}: the description is not plain JSON ({error})"
        ) from error
    with explain_os_errors("cannot make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_aside(folder / f"{name}.safetensors", lambda file: file.write(data))
    write_text_aside(folder / f"{name}.json", text + "\n")


def load_weights(
    folder: Path, device: str | torch.device = "cpu", name: str = "weights"
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights called `name` in `folder` on `device`, and the `meta` saved with them.

    Raises `DreamdriveError` when a file is missing or broken, or when the two do not belong together.
    """
    weights, description = folder / f"{name}.safetensors", folder / f"{name}.json"
    for path in (weights, description):
        if not path.is_file():
            raise DreamdriveError(f"no weights in {folder}: {path} is missing")
    with explain_os_errors("cannot read the weights in", folder):
        data, text = weights.read_bytes(), description.read_bytes()
    digest, shapes, meta = _read_description(description, text)
    if hashlib.sha256(data).hexdigest() != digest:
        raise DreamdriveError(
            f"{weights}: is damaged or is not the file that {description.name} describes (SHA-256)"
        )
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise DreamdriveError(f"{weights}: not a safetensors file ({one_line(error)})") from error
    if shapes != {key: (list(t.shape), _dtype_name(t)) for key, t in tensors.items()}:
        raise DreamdriveError(f"{weights}: its tensors are not those that {description.name} lists")
    return {key: tensor.to(device) for key, tensor in tensors.items()}, meta


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta` in the JSON file beside saved weights.

    Raises `DreamdriveError` when it cannot be read or is broken.
    """
    with explain_os_errors("cannot read", path):
        text = path.read_bytes()
    return _read_description(path, text)[2]


def _read_description(path: Path, text: bytes) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """SHA-256, shapes and types of the tensors, and `meta`, of the text of `path`."""
    try:
        told = json.loads(text)
        shapes = {key: (entry["shape"], entry["dtype"]) for key, entry in told["tensors"].items()}
        return told["sha256"], shapes, dict(told["meta"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DreamdriveError(
            f"{path}: broken, expected JSON with meta, sha256 and tensors ({one_line(error)})"
        ) from error


def fit_weights(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], where: str, by: str, partly: bool = False
) -> None:
    """Load `tensors` into `module`, each into the parameter or buffer of its name.

    Args:
        module: is left as it was where they do not fit.
        tensors: name -> values.
        where: the file or option that they come from, for messages.
        by: what says how large the module is, such as "config.yaml", for messages.
        partly: whether what `tensors` leaves out may keep its values.

    Raises:
        DreamdriveError: one is missing, unknown, or of another shape.
    """
    own = module.state_dict()
    for name in [*own, *(name for name in tensors if name not in own)]:
        if partly and name not in tensors:
            continue
        found, expected = (list(part[name].shape) if name in part else "missing" for part in (tensors, own))
        if found != expected:
            wanted = "nothing of that name" if name not in own else expected
            raise DreamdriveError(f"{where}: {name} is {found}, expected {wanted} by {by}")
    module.load_state_dict(tensors, strict=not partly)


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def rng_state(generators: Mapping[str, np.random.Generator] | None = None) -> dict[str, Any]:
    """The state of all chance as plain values: torch (CPU, and CUDA if there), Python, `generators`."""
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(words), gauss],
        "numpy": {name: _listed(g.bit_generator.state) for name, g in (generators or {}).items()},
    }


def set_rng_state(
    state: Mapping[str, Any], generators: Mapping[str, np.random.Generator] | None = None
) -> None:
    """Put back what `rng_state` returned: into torch, Python's `random`, `generators` of the same names.

    A CUDA state is put back on as many devices as both then and now have. Raises `DreamdriveError` when the
    names of the generators, or their kinds, differ from those saved.
    """
    generators = generators or {}
    if set(state["numpy"]) != set(generators):
        raise DreamdriveError(
            f"checkpoint: holds the random generators {sorted(state['numpy'])}, expected {sorted(generators)}"
        )
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():
        for device, words in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(words.cpu(), device)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    for name, generator in generators.items():
        now, saved = generator.bit_generator.state, state["numpy"][name]
        kind, old_kind = now["bit_generator"], saved["bit_generator"]
        if kind != old_kind:
            raise DreamdriveError(
                f"checkpoint: random generator {name}: saved was a {old_kind}, expected a {kind}"
            )
        generator.bit_generator.state = _like(saved, now)


def _listed(value: Any) -> Any:
    """A numpy generator's state with its arrays as lists of int."""
    if isinstance(value, Mapping):
        return {key: _listed(part) for key, part in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _like(value: Any, example: Any) -> Any:
    """`value` with the lists that stand for arrays in `example` made arrays again."""
    if isinstance(example, Mapping):
        return {key: _like(value[key], part) for key, part in example.items()}
    return np.array(value, dtype=example.dtype) if isinstance(example, np.ndarray) else value
