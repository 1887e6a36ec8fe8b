"""Pinhole camera: renders the textured ground, boxes on it, sky and fog.

Where the ray of a pixel meets the ground depends on the camera's height and tilt alone, so it is computed
once; a picture then looks the colour of the ground up at these points, moved and turned to the pose of the
camera. Far away a pixel covers more ground and reads a coarser level of a mip map. Boxes are drawn farthest
first."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from envs.carla.standin.actors import Pose
from envs.carla.standin.ground import TAGS, Ground
from envs.carla.standin.scenery import FACES, Boxes
from envs.carla.standin.weather import Weather

_SKY_TAG, _SKY_DEPTH = 11, 1000.0  # [m]
_FAR, _SMALL = 100.0, 3.0  # boxes farther away [m], or smaller in the picture [px], are not drawn
_NEAR = 0.15  # [m]
_MOST_FACES = 250  # so that their numbers fit into a byte
_SHADES = np.array([0.78, 0.85, 0.62, 0.7, 0.4, 1.0], np.float32)  # brightness of each face


@dataclass(frozen=True)
class _Table:
    """The ground points of the P pixels from `start` on.

    `ahead`, `right` (P,) [m] from the camera; then of each pixel's level: pixels a metre, width, first
    index, last row and column; `depth` (P,) [m]; `sky` (P,): pixels without ground; `up` (H * W,): height
    in the sky of the ray of every pixel.
    """

    start: int
    ahead: NDArray[np.float32]
    right: NDArray[np.float32]
    scale: NDArray[np.float32]
    width: NDArray[np.int32]
    offset: NDArray[np.int32]
    last_row: NDArray[np.float32]
    last_column: NDArray[np.float32]
    depth: NDArray[np.float32]
    sky: NDArray[np.bool_]
    up: NDArray[np.float32]


@dataclass(frozen=True)
class _Shading:
    """The weather in a picture: `sky` (H * W, 4); of the ground's P pixels `light` and `haze` (P, 4), a
    colour being (ground * light + haze) >> 8; of boxes the light's `tint` and the colour of `fog`, BGR (3,).
    """

    sky: NDArray[np.uint8]
    light: NDArray[np.uint16]
    haze: NDArray[np.uint16]
    tint: NDArray[np.float32]
    fog: NDArray[np.float32]


class Camera:
    """A pinhole camera of `width` x `height` pixels and horizontal field of view `fov` [degrees]."""

    def __init__(self, width: int, height: int, fov: float) -> None:
        self.width, self.height, self.fov = width, height, fov
        focal = 0.5 * width / math.tan(math.radians(fov) / 2)
        self._focal = focal
        right = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal
        up = -(np.arange(height, dtype=np.float32) + 0.5 - height / 2) / focal
        # (H * W, 3): ahead, right, up; one metre ahead
        self._rays = np.stack(
            [np.ones((height, width), np.float32), *np.meshgrid(right, up)], axis=-1
        ).reshape(-1, 3)
        self._table = lru_cache(maxsize=4)(self._make_table)
        self._shading = lru_cache(maxsize=4)(self._make_shading)

    def rgb(self, pose: Pose, height: float, ground: Ground, boxes: Boxes, weather: Weather) -> bytes:
        """A colour picture as BGRA, H x W x 4 bytes. `height`: the camera's above the ground [m]."""
        key = (round(height, 2), round(pose[3], 1), round(pose[5], 1))
        table = self._table(*key, ground)
        shading = self._shading(*key, ground, weather)
        picture = shading.sky.copy()
        # (P,) uint32 -> (P, 4) uint16
        seen = ground.colours.take(self._indices(table, pose, ground)).view(np.uint8).reshape(-1, 4)
        shown = seen.astype(np.uint16)
        shown *= shading.light
        shown += shading.haze
        shown >>= 8
        picture[table.start :] = shown
        faces = self._faces(pose, boxes)
        if len(faces.rows):
            far = weather.haze(faces.distance)[:, None]
            colours = faces.rows[:, 7:10] * faces.shade[:, None] * shading.tint * (1 - far)
            palette = np.full((len(far) + 1, 4), 255, np.uint8)
            palette[1:, :3] = colours + far * shading.fog
            drawn = self._draw(faces)
            # A pixel as one number: (H * W,) uint32
            whole = palette.view(np.uint32)[:, 0].take(drawn)
            np.copyto(picture.view(np.uint32)[:, 0], whole, where=drawn > 0)
        if weather.precipitation > 0:
            # drops depend on the pose alone: a repeated episode looks the same
            rng = np.random.default_rng([int(abs(value) * 1e3) for value in (*pose[:2], pose[4])])
            drops = rng.integers(0, len(picture), int(0.0002 * weather.precipitation * len(picture)))
            picture[drops] = picture[drops] // 2 + 100
        return picture.tobytes()

    def semantic(self, pose: Pose, height: float, ground: Ground, boxes: Boxes) -> bytes:
        """CARLA's semantic tags in the red channel of BGRA, H x W x 4 bytes."""
        table = self._table(round(height, 2), round(pose[3], 1), round(pose[5], 1), ground)
        tags = np.full(self.width * self.height, _SKY_TAG, np.uint8)
        column, row = self._places(table, pose, ground, np.float32(1.0 / ground.metres))
        column, row = np.clip(column, 0, ground.width - 1), np.clip(row, 0, ground.height - 1)
        seen = TAGS[ground.kinds[row.astype(np.int32), column.astype(np.int32)]]
        tags[table.start :] = np.where(table.sky, _SKY_TAG, seen)
        faces = self._faces(pose, boxes)
        drawn = self._draw(faces)
        palette = np.concatenate([[0], faces.rows[:, 10]]).astype(np.uint8)
        tags = np.where(drawn > 0, palette[drawn], tags)
        picture = np.zeros((len(tags), 4), np.uint8)
        picture[:, 2], picture[:, 3] = tags, 255
        return picture.tobytes()

    def depth(self, pose: Pose, height: float, ground: Ground, boxes: Boxes) -> bytes:
        """Distance along the camera's axis in CARLA's 24 bits, as BGRA, H x W x 4 bytes."""
        table = self._table(round(height, 2), round(pose[3], 1), round(pose[5], 1), ground)
        depth = np.full(self.width * self.height, _SKY_DEPTH, np.float32)
        depth[table.start :] = np.minimum(table.depth, _SKY_DEPTH)
        faces = self._faces(pose, boxes)
        drawn = self._draw(faces)
        covered = np.flatnonzero(drawn)
        if len(covered):
            face = drawn[covered] - 1
            # a ray meets the plane n . p = n . corner
            level = np.einsum("ij,ij->i", faces.normals, faces.corners[:, 0])[face]
            along = np.einsum("ij,ij->i", faces.normals[face], self._rays[covered])
            depth[covered] = np.clip(level / np.where(np.abs(along) < 1e-6, 1e-6, along), 0, _SKY_DEPTH)
        number = (depth.astype(np.float64) / _SKY_DEPTH * (2**24 - 1)).astype(np.uint32)
        picture = np.stack([number >> 16, number >> 8, number, np.full_like(number, 255)], axis=1)
        return picture.astype(np.uint8).tobytes()

    def _places(
        self, table: _Table, pose: Pose, ground: Ground, scale: NDArray[np.float32] | np.float32
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Column and row in the ground's raster, of `scale` pixels a metre, of each pixel."""
        yaw = math.radians(pose[4])
        c, s = np.float32(math.cos(yaw)), np.float32(math.sin(yaw))
        x, y = np.float32(pose[0] - ground.origin[0]), np.float32(pose[1] - ground.origin[1])
        column = (table.ahead * c - table.right * s + x) * scale
        row = (table.ahead * s + table.right * c + y) * scale
        return column, row

    def _indices(self, table: _Table, pose: Pose, ground: Ground) -> NDArray[np.int32]:
        column, row = self._places(table, pose, ground, table.scale)
        np.clip(column, 0, table.last_column, out=column)
        np.clip(row, 0, table.last_row, out=row)
        index = row.astype(np.int32)
        index *= table.width
        index += column.astype(np.int32)
        index += table.offset
        return index

    def _make_table(self, height: float, pitch: float, roll: float, ground: Ground) -> _Table:
        turned = self._rays @ _rotation(pitch, 0.0, roll).T  # (H * W, 3), ahead, right, up without the yaw
        down = -turned[:, 2]
        hits = down > 1e-3
        depth = np.where(hits, max(height, 0.05) / np.where(hits, down, 1.0), 1e4).astype(np.float32)
        hits &= depth < 400.0
        rows = hits.reshape(self.height, self.width).any(axis=1)
        start = int(np.argmax(rows)) * self.width if rows.any() else len(hits)
        depth, used = depth[start:], turned[start:]
        reach = np.where(hits[start:], depth, 0.0)
        # the size of the ground in a pixel: across its ray, and along it for grazing rays
        across = depth / self._focal
        covered = across / np.sqrt(np.clip(down[start:], 0.02, 1.0))
        level = np.clip(np.log2(covered / ground.metres), 0, len(ground.offsets) - 1).astype(np.int32)
        widths = np.array(ground.widths, np.int32)
        scale = (1.0 / (ground.metres * 2.0**level)).astype(np.float32)
        heights = np.array([ground.height >> i for i in range(len(widths))], np.float32)
        return _Table(
            start=start,
            ahead=(used[:, 0] * reach).astype(np.float32),
            right=(used[:, 1] * reach).astype(np.float32),
            scale=scale,
            width=widths[level],
            offset=np.array(ground.offsets, np.int32)[level],
            last_row=heights[level] - 1,
            last_column=(widths[level] - 1).astype(np.float32),
            depth=depth,
            sky=~hits[start:],
            up=np.clip(turned[:, 2] / np.linalg.norm(turned, axis=1), 0.0, 1.0).astype(np.float32),
        )

    def _make_shading(
        self, height: float, pitch: float, roll: float, ground: Ground, weather: Weather
    ) -> "_Shading":
        table = self._table(height, pitch, roll, ground)
        sky = np.full((self.width * self.height, 4), 255, np.uint8)
        sky[:, :3] = weather.sky(table.up)
        hidden = weather.haze(table.depth)[:, None]
        light = np.zeros((len(hidden), 4), np.uint16)
        haze = np.full((len(hidden), 4), 255 * 256, np.uint16)
        light[:, :3] = np.clip(weather.tint() * weather.shine, 0, 1) * (1 - hidden) * 255.0
        haze[:, :3] = np.clip(weather.haze_colour() * hidden, 0, 254) * 255.0
        light[table.sky] = 0
        haze[table.sky] = sky[table.start :][table.sky].astype(np.uint16) * 256
        return _Shading(sky, light, haze, weather.tint(), weather.haze_colour())

    def _faces(self, pose: Pose, boxes: Boxes) -> "_Faces":
        """The faces that may be visible, farthest first."""
        turn = _rotation(pose[3], pose[4], pose[5])
        eye = np.array(pose[:3], np.float32)
        away = (boxes.rows[:, :3] - eye) @ turn  # (N, 3) ahead, right, up
        size, ahead = boxes.size, away[:, 0]
        distance = np.sqrt(np.einsum("ij,ij->i", away, away))
        aside = np.abs(away[:, 1]) - size < (0.55 * self.width / self._focal) * np.maximum(ahead + size, 0)
        large = boxes.largest * (2 * self._focal / _SMALL) > distance
        keep = np.flatnonzero((ahead > -size) & (distance < _FAR + size) & aside & large)
        keep = keep[np.argsort(-distance[keep], kind="stable")]
        corners, normals = boxes.corners[keep] - eye, boxes.normals[keep]
        visible = np.einsum("ijk,ijk->ij", normals, corners[:, FACES[:, 0]]) < 0  # (K, 6)
        box, side = np.nonzero(visible)
        box, side = box[-_MOST_FACES:], side[-_MOST_FACES:]
        seen = corners[box[:, None], FACES[side]] @ turn  # (F, 4, 3) ahead, right, up
        chosen = keep[box]
        return _Faces(boxes.rows[chosen], seen, normals[box, side] @ turn, _SHADES[side], distance[chosen])

    def _draw(self, faces: "_Faces") -> NDArray[np.uint8]:
        """Number of the face in each pixel (H * W,), from 1 on; 0 for none."""
        image = Image.new("L", (self.width, self.height))
        # Pillow's polygon() spends most of its time on parsing the colour
        polygon = ImageDraw.Draw(image).draw.draw_polygon
        ahead = faces.corners[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            flat = faces.corners[..., 1:] / ahead[..., None] * (self._focal, -self._focal)
        flat += (self.width / 2 - 0.5, self.height / 2 - 0.5)  # Pillow counts from the middle of a pixel
        front = ahead.min(axis=1, initial=_FAR) > _NEAR
        points = flat.reshape(-1, 8).tolist()
        for i, whole in enumerate(front.tolist()):
            outline = points[i] if whole else self._clipped(faces.corners[i])
            if len(outline) >= 6:
                polygon(outline, i + 1, 1)
        return np.asarray(image).reshape(-1)

    def _clipped(self, corners: NDArray[np.float32]) -> list[float]:
        """Projection of the part of a face (4, 3) in front of the camera: x0, y0, x1, y1, ... [px]."""
        kept: list[tuple[float, float, float]] = []
        points = corners.tolist()
        for a, b in zip(points, points[1:] + points[:1], strict=True):
            if a[0] > _NEAR:
                kept.append((a[0], a[1], a[2]))
            if (a[0] > _NEAR) != (b[0] > _NEAR):
                t = (_NEAR - a[0]) / (b[0] - a[0])
                kept.append((_NEAR, a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2])))
        half = (self.width / 2 - 0.5, self.height / 2 - 0.5)
        flat = [(half[0] + self._focal * y / x, half[1] - self._focal * z / x) for x, y, z in kept]
        return [value for point in flat for value in point]


@dataclass(frozen=True)
class _Faces:
    """F faces of boxes: `rows` (F, 12) of their boxes, `corners` (F, 4, 3) and `normals` (F, 3) in the
    camera's axes, their brightness and their distance (F,)."""

    rows: NDArray[np.float32]
    corners: NDArray[np.float32]
    normals: NDArray[np.float32]
    shade: NDArray[np.float32]
    distance: NDArray[np.float32]


def _rotation(pitch: float, yaw: float, roll: float) -> NDArray[np.float32]:
    """CARLA's rotation, (3, 3): columns are the camera's ahead, right and up in the world's axes."""
    cp, cy, cr = (math.cos(math.radians(angle)) for angle in (pitch, yaw, roll))
    sp, sy, sr = (math.sin(math.radians(angle)) for angle in (pitch, yaw, roll))
    return np.array(
        [
            [cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr],
            [cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr],
            [sp, -cp * sr, cp * cr],
        ],
        np.float32,
    )
