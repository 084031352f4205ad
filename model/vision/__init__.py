"""Nets that look at images, to repeat the experiments of the paper that Rocket is named after."""
