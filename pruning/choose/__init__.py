"""Which channels stay: budgets, widths, rankings, selections, fixed plans of papers."""
