"""Event logs of many runs, read with DuckDB and told in one report."""
