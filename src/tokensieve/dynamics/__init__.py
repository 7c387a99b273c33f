"""Token training dynamics: which tokens learn, which never do, and what selection did to each kind."""
