"""Published systems as sequences of ordinary calls over the parts."""
