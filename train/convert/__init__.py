"""The verb that reads and writes other people's layouts."""
