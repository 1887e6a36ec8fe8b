"""A lightweight stand-in for the CARLA server, for CARLA's own unmodified 0.9.16 Python client.

Code that works with it works with CARLA's client and wire protocol; driving in it does not equal driving in
CARLA. Roads come from OpenDRIVE, cars are kinematic bicycles, pictures show a flat ground with boxes on it,
and weather is light, wetness and fog. Nothing here renders or simulates like Unreal Engine.

Reading order: `protocol` (bytes), `server` (sockets), `calls` and `traffic` (the remote procedure calls),
`world` (a tick), then its parts: `roadmap`, `towns`, `vehicle`, `lights`, `scenery`, `camera`, `sensors`.
"""

VERSION = "0.9.16"
"""Version of CARLA whose protocol is implemented."""
