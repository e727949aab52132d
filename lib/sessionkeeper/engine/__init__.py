"""What a command means. No threads of its own; clock and backend are passed in."""
