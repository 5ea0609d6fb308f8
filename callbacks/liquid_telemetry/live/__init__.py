"""What a person looks at: runs, their curves and their events, live or long over, as one page and its data."""
