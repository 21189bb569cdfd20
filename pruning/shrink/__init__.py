"""From a plan to a network: masked, or smaller and of plain Keras layers."""
