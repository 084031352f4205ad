"""What is done to events and batches, one verb a module. Importing this package imports nothing heavy."""
