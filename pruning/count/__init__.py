"""Parameters, operations and bytes: of a network, and as functions of its widths."""
