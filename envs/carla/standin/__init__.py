"""A light stand-in for the CARLA simulator, for CARLA's own unmodified 0.9.16 Python client.

It shows that code works with CARLA's client and wire protocol; it does not show that driving in it equals
driving in CARLA. Roads come from OpenDRIVE; cars are kinematic bicycles on them, pictures are a flat ground
with boxes on it, and weather is light, wetness and fog. Nothing here renders or simulates like Unreal Engine.

Reading order: `protocol` (bytes), `server` (sockets), `calls` and `traffic` (what a client may ask), `world`
(a tick), then its parts: `roadmap`, `towns`, `vehicle`, `lights`, `scenery`, `camera`, `sensors`.
"""

VERSION = "0.9.16"
"""Version of CARLA whose protocol is spoken."""
