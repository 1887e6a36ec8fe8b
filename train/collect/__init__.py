"""Jobs that drive and record episodes: CarRacing, CARLA, demonstrations, instructed and imagined driving."""
