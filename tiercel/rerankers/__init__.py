"""What looks closer at the candidates that the legs have found."""
