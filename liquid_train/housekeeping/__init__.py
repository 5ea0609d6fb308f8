"""What runs leave on disk: which of it may go, and how much there is."""
