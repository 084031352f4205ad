"""What `rocket bench quality` is made of: rows, variants, training, judging, costs, peers, tables."""
