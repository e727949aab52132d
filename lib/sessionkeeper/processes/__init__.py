"""The processes of one open store, and the tree they stand in."""
