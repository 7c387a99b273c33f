"""The token viewer: one self-contained page on which anyone can look at what is kept, and why."""
