"""In what order and how deep: the pipeline string, fusion, the cascade."""
