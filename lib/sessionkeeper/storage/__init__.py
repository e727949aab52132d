"""Bytes on the disk. No threads, no sessions' meaning."""
