"""Training images that nobody photographed: generators, what they draw, and how good that is."""
