"""Symbols to bits and back: Huffman, asymmetric numeral systems, bit streams."""
