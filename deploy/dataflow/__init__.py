"""The flex template of live ingest: its description, its image, and what it launches."""
