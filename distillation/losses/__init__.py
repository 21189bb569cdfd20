"""One file for each idea; a class that is registered in any file of this folder is found by `build`."""
