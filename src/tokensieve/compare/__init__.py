"""Arms x seeds under matched conditions: what selection does on one's own data, and how sure that is."""
