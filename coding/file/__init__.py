"""The file `.kpz`: arrays and whole Keras models, every byte checked before it is used."""
