"""The drill behind `sessionkeeper demo`: crash it, kill it, and count what is left."""
