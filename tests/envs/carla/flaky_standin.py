"""The stand-in, but its camera's pictures get lost while FILE exists: `flaky_standin.py FILE OPTIONS...`."""

import struct
import sys
from pathlib import Path

from envs.carla.standin.__main__ import main
from envs.carla.standin.protocol import STREAM_TYPES
from envs.carla.standin.server import StandInServer

_CAMERA = STREAM_TYPES["sensor.camera.rgb"]
_send = StandInServer._send_stream
_flag = Path(sys.argv.pop(1))


def _send_some(self: StandInServer, stream: int, data: bytes) -> None:
    # A message's length, then what kind of sensor sends it.
    if struct.unpack_from("<IQ", data)[1] != _CAMERA or not _flag.exists():
        _send(self, stream, data)


if __name__ == "__main__":
    StandInServer._send_stream = _send_some  # type: ignore[method-assign]
    sys.exit(main())
