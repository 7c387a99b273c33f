"""What a trained model is worth: losses on held-out target text, and what selection keeps."""
