"""What every job shares: folder, checkpoint, tracking, progress, device, errors, options."""
