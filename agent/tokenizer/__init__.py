"""Pictures to codes and back, and the losses that teach it."""
