"""The live demo: traffic, questions and the processes of the loop, and the count at the end."""
