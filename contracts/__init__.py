"""What travels and what it means: data contracts, apps, formats, names."""
