"""What learns: tensors in, tensors out. No files, no simulators, no tracking, no printing."""
