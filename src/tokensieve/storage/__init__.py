"""Bytes on disk and elsewhere: checksums of every block, files behind URLs, stores kept in both places."""
