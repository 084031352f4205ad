"""The nets and how they learn. Importing this package imports nothing heavy."""
