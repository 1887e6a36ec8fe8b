"""Conversion between dreamdrive's episodes and the layouts of public data sets."""
