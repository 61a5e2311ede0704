"""What runs the networks: runtime, tokenizers, batching, encoders, export."""
