"""How Rocket is run: the command and the local servers."""
