"""Answers over HTTP and over the Model Context Protocol. Each module is imported only by the command that serves it."""
