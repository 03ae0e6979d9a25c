"""One file is one dataset: facts as data, and the way to data objects."""
