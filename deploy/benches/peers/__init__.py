"""What Rocket is measured against, where that takes more than a few lines."""
