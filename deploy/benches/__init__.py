"""What `rocket bench` measures, one stage a module."""
