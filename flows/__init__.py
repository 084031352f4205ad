"""Nodes wired into flows."""
