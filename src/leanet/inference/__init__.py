"""What can be done with a trained detector."""
