"""What tests share: toy networks, reference formulas, hostile files, programs as processes."""
