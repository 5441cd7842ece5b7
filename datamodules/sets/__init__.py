"""The data sets: each file lists the objects of one, or of a family, and registers them in the catalog."""
