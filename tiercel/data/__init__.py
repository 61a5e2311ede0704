"""Files and streams to values and back: corpora, queries, qrels, runs."""
