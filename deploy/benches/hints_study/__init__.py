"""The parts of `rocket bench hints`."""
