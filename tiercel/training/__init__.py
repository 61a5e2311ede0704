"""How are our own models made? Hard negatives, losses, one loop, one module for each family of models."""
