"""Stores that are there: verify, inspect and export them, and import tokens that others made."""
