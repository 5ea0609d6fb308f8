"""The loop observer: Lightning's hooks and profiler actions become frozen records."""
