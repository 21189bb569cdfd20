"""The only room that knows devices; `secateur.op_utils` is its door."""
