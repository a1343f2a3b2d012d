"""What is made of detections: rows of the binary against recomputations."""
