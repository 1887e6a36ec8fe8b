"""Episodes and their .npz files.

In a file, row t holds `observations[t]`, the action taken in it, and that action's reward and done
(Gymnasium's order). In memory an `Episode` is in arrival alignment: row t holds the observation, the
action that led to it and the reward that arrived with it, so T actions make T + 1 rows.

| key | shape | dtype | |
|---|---|---|---|
| observations | (T, C, H, W), C is 1, 3 or 4 | uint8 | entry "image"; may be absent when there are vectors |
| vectors, vectors.NAME | (T, D) | float32 | entries "vector" and NAME |
| token | (T, G) | uint16 or int32 | entry "token": codes of a picture by a tokenizer |
| actions | (T, A) | float32 | |
| rewards | (T,) | float32 | |
| dones | (T,) | bool | only the last may be true; equals terminated or truncated |
| terminated, truncated | (T,) | bool | optional: without them a done is taken as terminated |
| final_observation | (C, H, W) | uint8 | optional: without it the last observation is repeated |
| final_vectors, final_vectors.NAME | (D,) | float32 | likewise |
| final_token | (G,) | as token | likewise |

Any other key is an extra: it is kept as it is. Files are not trusted: nothing is unpickled, and nothing is loaded
before its size is known.
"""

import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from pydantic import BaseModel, Field

from train.run.checkpoint import write_aside
from train.run.errors import DreamdriveError, describe_os_error, one_line

# The only ways of storing that numpy uses; the others unpack without a bound on memory.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Booleans, integers, floats, bytes and text. Objects would have to be unpickled.
_PLAIN_KINDS = "biufSU"
_OURS = ("observations", "final_observation", "actions", "rewards", "dones", "terminated", "truncated")


class EpisodeLimits(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """What an episode file may cost."""

    max_bytes: int = Field(default=2 * 1024**3, gt=0)
    """Largest episode file that is read, in bytes after unpacking."""


@dataclass
class Episode:
    """One episode of T actions in arrival alignment, T + 1 rows."""

    observations: dict[str, np.ndarray]
    """"image": (T+1, C, H, W) uint8; "token": (T+1, G) int32; any other entry: a vector, (T+1, D) float32."""
    actions: np.ndarray
    """(T+1, A) float32: the action that led to the row; zeros in row 0."""
    rewards: np.ndarray
    """(T+1,) float32: the reward that arrived with the row; 0 in row 0."""
    is_first: np.ndarray
    """(T+1,) bool: true in row 0 only."""
    is_terminal: np.ndarray
    """(T+1,) bool: true in the last row when the environment terminated, never when it was truncated."""
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    """Arrays of the file that no job needs, as they are in the file."""

    def __len__(self) -> int:
        """The number of actions, T."""
        return len(self.rewards) - 1


def write_episode(path: Path, episode: Episode) -> None:
    """Write `episode` to `path` (.npz, deflated), whole or not at all.

    Raises:
        DreamdriveError: the episode breaks the format, or the disk is full.
    """
    path = Path(path)
    arrays = to_file_order(str(path), episode)

    def write(file: IO[bytes]) -> None:
        # Level 1: frames shrink nearly as much as at level 6, in a third of the time.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_aside(path, write)


def read_episode(path: Path, limits: EpisodeLimits | None = None) -> Episode:
    """Read an episode file in the users' format and check all of it before returning it.

    Raises:
        DreamdriveError: one line with file, key and expectation.
    """
    path = Path(path)
    return from_file_order(str(path), read_npz(path, (limits or EpisodeLimits()).max_bytes))


def from_file_order(where: str, arrays: dict[str, np.ndarray]) -> Episode:
    """The episode that a file's arrays are; see the table above. `where` begins every complaint.

    Raises:
        DreamdriveError: one line with `where`, key and expectation.
    """
    arrays = _check(where, arrays)
    terminated = arrays["dones"]
    if "terminated" in arrays:
        terminated = arrays["terminated"]
    elif "truncated" in arrays:
        terminated = arrays["dones"] & ~arrays["truncated"]
    observations: dict[str, np.ndarray] = {}
    for key, final_key, name in _observation_keys(arrays):
        final = arrays.get(final_key, arrays[key][-1])
        # (T+1, ...)
        observations[name] = np.concatenate([arrays[key], final[None]])
        if name == "token":
            observations[name] = observations[name].astype(np.int32)
    known = {*_OURS, *(key for keys in _observation_keys(arrays) for key in keys[:2])}
    return Episode(
        observations=observations,
        actions=_after_a_zero(arrays["actions"]),
        rewards=_after_a_zero(arrays["rewards"]),
        is_first=~_after_a_zero(np.ones_like(terminated)),
        is_terminal=_after_a_zero(terminated),
        extras={key: array for key, array in arrays.items() if key not in known},
    )


def _after_a_zero(array: np.ndarray) -> np.ndarray:
    """(T, ...) -> (T+1, ...): a zero row in front, where no action came before."""
    return np.concatenate([np.zeros_like(array[:1]), array])


def _observation_keys(arrays: dict[str, np.ndarray]) -> list[tuple[str, str, str]]:
    """(key, key of its final value, entry of the observation) for each observation in the file."""
    keys = [("observations", "final_observation", "image")] if "observations" in arrays else []
    for key in arrays:
        if key == "token":
            keys.append((key, "final_token", "token"))
        elif key == "vectors":
            keys.append((key, "final_vectors", "vector"))
        elif key.startswith("vectors."):
            keys.append((key, f"final_{key}", key.removeprefix("vectors.")))
    return keys


def to_file_order(where: str, episode: Episode) -> dict[str, np.ndarray]:
    """The arrays of a file for an episode, checked; `from_file_order` of them gives an equal episode.

    Raises:
        DreamdriveError: the episode breaks the format; the line begins with `where`.
    """
    rows = len(episode.rewards)
    arrays: dict[str, np.ndarray] = {}
    for name, values in episode.observations.items():
        if name == "image":
            key, final_key = "observations", "final_observation"
        elif name == "token":
            key, final_key = "token", "final_token"
            values = _fewest_bytes(where, values)
        else:
            key = "vectors" if name == "vector" else f"vectors.{name}"
            final_key = f"final_{key}"
        arrays[key], arrays[final_key] = values[:-1], values[-1]
    rowwise = [*episode.observations.values(), episode.actions, episode.is_first, episode.is_terminal]
    if rows < 2 or any(len(values) != rows for values in rowwise):
        raise DreamdriveError(f"{where}: an episode to write needs T + 1 rows everywhere, T at least 1")
    if not episode.is_first[0] or episode.is_first[1:].any() or episode.is_terminal[:-1].any():
        raise DreamdriveError(f"{where}: expected is_first in row 0 only, is_terminal in the last at most")
    ends = np.zeros(rows - 1, bool)
    ends[-1] = True
    arrays |= {"actions": episode.actions[1:], "rewards": episode.rewards[1:], "dones": ends}
    arrays |= {"terminated": episode.is_terminal[1:], "truncated": ends & ~episode.is_terminal[1:]}
    for key in episode.extras:
        plain = all(part.isidentifier() for part in key.split("."))
        if key in arrays or not plain or key == "token" or key.startswith(("final_", "vectors")):
            raise DreamdriveError(f"{where}: extra {key!r}: expected a plain name not used by the format")
    return _check(where, arrays | episode.extras)


def _check(where: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Check everything the format says and cast to its dtypes; extras pass as they are."""
    arrays = dict(arrays)
    observation_keys = _observation_keys(arrays)
    if not observation_keys:
        raise DreamdriveError(f"{where}: 'observations': missing, expected (T, C, H, W) uint8")
    arrays["actions"] = _floats(where, arrays, "actions", 2)
    steps = len(arrays["actions"])
    if steps < 1:
        raise DreamdriveError(f"{where}: 'actions': no rows, expected T at least 1")
    arrays["rewards"] = _floats(where, arrays, "rewards", 1)
    for key, final_key, _ in observation_keys:
        _observation(where, arrays, key, final_key)
    flags = [key for key in ("dones", "terminated", "truncated") if key in arrays or key == "dones"]
    for key in flags:
        arrays[key] = _bools(where, arrays, key)
    for key in ["rewards", *flags, *(key for key, _, _ in observation_keys)]:
        if len(arrays[key]) != steps:
            raise DreamdriveError(
                f"{where}: {key!r}: {len(arrays[key])} rows, expected {steps} as in 'actions'"
            )
    _check_ends(where, arrays)
    return arrays


def _check_ends(where: str, arrays: dict[str, np.ndarray]) -> None:
    """`dones` may be true in the last row only, and must agree with `terminated` and `truncated`."""
    dones = arrays["dones"]
    if dones[:-1].any():
        raise DreamdriveError(
            f"{where}: 'dones': true in row {int(dones.argmax())}, expected in the last only"
        )
    reasons = [arrays[key] for key in ("terminated", "truncated") if key in arrays]
    reason = np.any(reasons, axis=0) if reasons else dones
    # With only one of the two known, a done may be due to the other.
    if (reason & ~dones).any() or (len(reasons) == 2 and (dones & ~reason).any()):
        raise DreamdriveError(f"{where}: 'dones': expected to equal terminated or truncated in every row")


def _observation(where: str, arrays: dict[str, np.ndarray], key: str, final_key: str) -> None:
    """Check one observation entry and its final value, in place."""
    if key == "observations":
        shape, dtype = arrays[key].shape, arrays[key].dtype
        if dtype != np.uint8:
            raise DreamdriveError(f"{where}: {key!r}: dtype {dtype}, expected uint8")
        if len(shape) != 4 or shape[1] not in (1, 3, 4) or 0 in shape:
            raise DreamdriveError(f"{where}: {key!r}: shape {shape}, expected (T, C, H, W) with C 1, 3 or 4")
    elif key == "token":
        _check_tokens(where, key, arrays[key], 2)
    else:
        arrays[key] = _floats(where, arrays, key, 2)
    if final_key in arrays:
        if key == "token":
            _check_tokens(where, final_key, arrays[final_key], 1)
        elif key != "observations":
            arrays[final_key] = _floats(where, arrays, final_key, 1)
        final, rows = arrays[final_key], arrays[key]
        if final.shape != rows.shape[1:] or final.dtype != rows.dtype:
            raise DreamdriveError(
                f"{where}: {final_key!r}: {final.shape} {final.dtype}, expected {rows.shape[1:]} {rows.dtype}"
            )


def _fewest_bytes(where: str, tokens: np.ndarray) -> np.ndarray:
    """Tokens as uint16 where all fit, else as int32."""
    if tokens.dtype.kind not in "iu":
        raise DreamdriveError(f"{where}: 'token': dtype {tokens.dtype}, expected whole numbers")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < 2**31:
        raise DreamdriveError(f"{where}: 'token': {tokens.min()} to {tokens.max()}, expected 0 to {2**31 - 1}")
    return tokens.astype(np.uint16 if tokens.size and tokens.max() < 2**16 else np.int32)


def _check_tokens(where: str, key: str, array: np.ndarray, ndim: int) -> None:
    """Check that an array is one of codes, the last dimension being a picture's."""
    if array.dtype not in (np.uint16, np.int32):
        raise DreamdriveError(f"{where}: {key!r}: dtype {array.dtype}, expected uint16 or int32")
    if array.ndim != ndim or 0 in array.shape[-1:]:
        raise DreamdriveError(
            f"{where}: {key!r}: shape {array.shape}, expected {'(T, G)' if ndim == 2 else '(G,)'}"
        )
    if array.size and array.min() < 0:
        raise DreamdriveError(f"{where}: {key!r}: {array.min()}, expected codes from 0 on")


def _floats(where: str, arrays: dict[str, np.ndarray], key: str, ndim: int) -> np.ndarray:
    """A key that holds finite numbers, as float32."""
    vectors = "(D,)" if ndim == 1 else "(T, D)"
    expected = {"rewards": "(T,)", "actions": "(T, A)"}.get(key, vectors)
    if key not in arrays:
        raise DreamdriveError(f"{where}: {key!r}: missing, expected {expected} float32")
    array = arrays[key]
    if array.dtype.kind not in "fiu":
        raise DreamdriveError(f"{where}: {key!r}: dtype {array.dtype}, expected float32")
    if array.ndim != ndim or 0 in array.shape[1:]:
        raise DreamdriveError(f"{where}: {key!r}: shape {array.shape}, expected {expected}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DreamdriveError(f"{where}: {key!r}: NaN or infinite, expected finite float32 numbers")
    return array


def _bools(where: str, arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    """A key that holds one true or false a row; 0 and 1 of an integer dtype will do."""
    if key not in arrays:
        raise DreamdriveError(f"{where}: {key!r}: missing, expected (T,) bool")
    array = arrays[key]
    if array.dtype.kind not in "biu" or array.ndim != 1:
        raise DreamdriveError(f"{where}: {key!r}: {array.shape} {array.dtype}, expected (T,) bool")
    if not np.isin(array, (0, 1)).all():
        raise DreamdriveError(f"{where}: {key!r}: other values than 0 and 1, expected (T,) bool")
    return array.astype(bool)


def read_npz(
    path: Path, max_bytes: int, wanted: Callable[[str], bool] = lambda key: True
) -> dict[str, np.ndarray]:
    """Read the arrays of the .npz file `path` whose keys are `wanted`, by default all.

    The whole file must have at most `max_bytes` bytes once unpacked.

    Raises:
        DreamdriveError: one line with file, key and expectation.
    """
    key = ""
    try:
        size = os.stat(path).st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > max_bytes:
                raise DreamdriveError(f"{path}: {unpacked} bytes unpacked, expected at most {max_bytes}")
            arrays: dict[str, np.ndarray] = {}
            for member in members:
                key = member.filename.removesuffix(".npy")
                if key == member.filename or key in arrays:
                    raise DreamdriveError(f"{path}: {key!r}: expected one .npy array for each key")
                if member.compress_type not in _COMPRESSIONS or member.flag_bits & 1:
                    raise DreamdriveError(f"{path}: {key!r}: expected stored or deflated, not encrypted")
                if member.compress_type == zipfile.ZIP_STORED and member.file_size > size:
                    raise DreamdriveError(f"{path}: {key!r}: truncated, expected {member.file_size} bytes")
                if not wanted(key):
                    continue
                with archive.open(member) as file:
                    arrays[key] = _read_npy(file, member.file_size, f"{path}: {key!r}")
            return arrays
    except DreamdriveError:
        raise
    except OSError as error:
        raise DreamdriveError(describe_os_error(error, f"cannot read {path}")) from error
    except Exception as error:
        # Broken bytes make zipfile, zlib and the .npy header parser raise a dozen kinds of exceptions;
        # to the user they all mean the same.
        where = f"{path}: {key!r}" if key else f"{path}"
        reason = one_line(error)[:200]
        raise DreamdriveError(f"{where}: broken, expected a readable .npz file ({reason})") from error


def _read_npy(file: IO[bytes], file_size: int, where: str) -> np.ndarray:
    """Read one .npy array of `file_size` bytes, header included; the header is checked before its data."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise DreamdriveError(f"{where}: .npy version {version}, expected 1.0 or 2.0")
    if dtype.kind not in _PLAIN_KINDS:
        raise DreamdriveError(f"{where}: dtype {dtype}, expected plain numbers (objects are never unpickled)")
    # Python integers, so that a forged shape cannot wrap around.
    expected = math.prod(int(length) for length in shape) * dtype.itemsize
    if min(shape, default=0) < 0 or expected > file_size:
        raise DreamdriveError(f"{where}: shape {shape} of {dtype}, expected to fit in {file_size} bytes")
    # Asking for one byte more reaches the end, where zipfile compares the checksum.
    data = file.read(expected + 1)
    if len(data) != expected:
        raise DreamdriveError(
            f"{where}: {len(data)} bytes or more, expected {expected} for {shape} of {dtype}"
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
