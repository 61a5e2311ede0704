"""The commands, one module for each group: arguments in, values to the modules below."""
